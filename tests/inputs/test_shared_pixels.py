"""Shared pixels: whole as long as anyone has them, in memory that is used again, and on no disk."""

from __future__ import annotations

import errno
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fcn_cli.inputs import shared_pixels
from fcn_cli.inputs.decode_options import DecodeOptions
from fcn_cli.inputs.decode_pool import DecodePool
from fcn_cli.inputs.decoder import DecodeSettings
from fcn_cli.inputs.discovery import InputRequest, discover
from fcn_cli.inputs.shared_pixels import (
    InFile,
    Pixels,
    ReceivedPixels,
    Shared,
    SharedMemory,
    WorkerPixels,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all pixels go through the pipe")

UNIT = 64 << 10


class Ends(NamedTuple):
    """Both ends of the way: two workers' and the main process's."""

    workers: tuple[WorkerPixels, WorkerPixels]
    main: ReceivedPixels
    released: list[int]


def ends(directory: Path | str, units: int = 64) -> Ends:
    shared = SharedMemory(multiprocessing.get_context(), 2, units * UNIT)
    released: list[int] = []
    first, second = (
        WorkerPixels(shared, worker, str(directory), shared_pixels.LARGE_BYTES) for worker in range(2)
    )
    return Ends((first, second), ReceivedPixels(shared, released.append), released)


def shape_of(quarters: int) -> tuple[int, int, int]:
    """Return a shape of at least so many quarters of the least that is shared."""
    return (quarters, UNIT // 3 + 1, 3)


def sent(made: WorkerPixels, quarters: int, value: int) -> Pixels | Shared | InFile:
    pixels = made.allocate(shape_of(quarters))
    pixels[:] = value
    return made.pass_on(pixels)


def received(main: ReceivedPixels, part: Pixels | Shared | InFile) -> Pixels:
    return main.pixels(part) if isinstance(part, Shared | InFile) else part


@settings(max_examples=150)
@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 1),
            st.integers(1, 12),
            st.sampled_from(["send", "send", "send", "fail", "drop", "view"]),
            st.integers(0, 50),
        ),
        max_size=60,
    ),
    units=st.integers(0, 40),
    large=st.integers(6, 20),
)
def test_no_pixels_change_while_anyone_has_them(
    steps: list[tuple[int, int, str, int]], units: int, large: int
) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as directory:
        patch.setattr(shared_pixels, "LARGE_BYTES", large * UNIT)
        both = ends(directory, units)
        held: list[tuple[Pixels, int]] = []
        total = 0
        for value, (worker, quarters, what, which) in enumerate(steps):
            made = both.workers[worker]
            if what == "send":
                part = sent(made, quarters, value % 251)
                pixels = received(both.main, part)
                assert pixels.shape == shape_of(quarters)
                assert isinstance(part, InFile) == (pixels.nbytes >= large * UNIT)
                total += 0 if isinstance(part, np.ndarray) else pixels.nbytes
                held.append((pixels, value % 251))
                del pixels, part
            elif what == "fail":
                made.allocate(shape_of(quarters))[:] = 255
            elif held and what == "drop":
                del held[which % len(held)]
            elif held:
                place = which % len(held)
                whole, number = held[place]
                held[place] = whole.reshape(-1)[which // 2 :], number
                del whole
            made.take_back()
            assert all((pixels == number).all() for pixels, number in held)
            # Mapped files have no names any more.
            assert not os.listdir(directory)
        held.clear()
        assert sum(both.released) == total


def test_rows_are_left_to_their_file_and_come_back(tmp_path: Path) -> None:
    both = ends(tmp_path)
    made = both.workers[0].allocate((4096, 4096, 3))
    made[:] = np.arange(4096, dtype=np.uint16).view(np.uint8).reshape(4096, 2)[:, :1, None]
    part = both.workers[0].pass_on(made)
    assert isinstance(part, InFile)
    pixels = both.main.pixels(part)
    before = pixels.copy()
    del made
    full = memory_of_files()
    shared_pixels.leave_rows(pixels[:, ::-1], 2048)
    assert full - memory_of_files() > 0.45 * pixels.nbytes
    assert np.array_equal(pixels, before)
    # Nothing happens to pixels that are in no file.
    for other in (before, received(both.main, sent(both.workers[1], 8, 3))):
        kept = other.copy()
        shared_pixels.leave_rows(other, len(other))
        assert np.array_equal(other, kept)


def memory_of_files() -> int:
    """Return the bytes of files that this process has in memory."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.split("RssFile:")[1].split()[0])


def test_memory_is_used_again_once_its_pixels_are_gone(tmp_path: Path) -> None:
    both = ends(tmp_path)
    made = both.workers[0]
    first = sent(made, 8, 1)
    assert isinstance(first, Shared)
    pixels = received(both.main, first)
    assert sent(made, 8, 2) != first
    view = pixels[0]
    del pixels
    assert sent(made, 8, 3) != first
    assert (view == 1).all()
    assert not both.released
    del view
    assert both.released == [8 * (UNIT // 3 + 1) * 3]
    # A smaller image fits too.
    assert sent(made, 5, 4) == first._replace(shape=shape_of(5))


def test_where_there_is_no_room_pixels_are_sent_themselves(tmp_path: Path) -> None:
    both = ends(tmp_path, units=12)
    made = both.workers[0]
    first = sent(made, 8, 1)
    assert isinstance(first, Shared)
    pixels = received(both.main, first)
    second = sent(made, 8, 2)
    assert isinstance(second, np.ndarray)
    assert (second == 2).all()
    assert (pixels == 1).all()
    # Another worker's memory is its own.
    assert isinstance(sent(both.workers[1], 8, 3), Shared)


def test_memory_of_an_image_that_failed_is_free(tmp_path: Path) -> None:
    made = ends(tmp_path).workers[0]
    made.allocate(shape_of(8))
    made.take_back()
    first = sent(made, 8, 1)
    assert isinstance(first, Shared)
    assert first.unit == 0


@pytest.mark.parametrize("large", [False, True], ids=["memory", "disk"])
def test_without_memory_or_a_full_disk_pixels_are_sent_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(shared_pixels, "LARGE_BYTES", 1 if large else 1 << 40)
    part = sent(ends(tmp_path).workers[0], 8, 7)
    assert isinstance(part, np.ndarray)
    assert (part == 7).all()
    assert not list(tmp_path.iterdir())


def test_small_images_are_sent_themselves(tmp_path: Path) -> None:
    made = ends(tmp_path).workers[0]
    assert isinstance(made.pass_on(made.allocate((100, 100, 3))), np.ndarray)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of images of many shapes, which are not small for the network."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(60):
        Image.new("RGB", (40 + number, 30), (number, 0, 0)).save(folder / f"{number:02}.png")
    return folder


def decoded(
    folder: Path, seen: Callable[[int], None], *, clean: bool = False, is_shared: bool = True
) -> None:
    """Decode a folder in two workers; keep all pixels, and tell how many images there are so far."""
    held = []
    sources = discover(InputRequest([str(folder)])).sources
    with DecodePool(sources, DecodeSettings(DecodeOptions(300)), 2, clean=clean) as pool:
        for image in filter(None, pool):
            assert image.pixels is not None
            # Only pixels that came through the pipe are this process's own.
            assert image.pixels.flags.writeable != is_shared
            held.append(image.pixels)
            seen(len(held))
    assert all((pixels[..., 0] == number).all() for number, pixels in enumerate(held))


def test_descriptors_do_not_grow_with_images(folder: Path) -> None:
    counts = {}
    decoded(folder, lambda done: counts.update({done: len(os.listdir("/proc/self/fd"))}))
    assert counts[60] <= counts[5]


@pytest.mark.parametrize("clean", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_pixels_are_on_no_disk(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean: bool
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    mapped = []
    decoded(folder, lambda _: mapped.append(Path("/proc/self/maps").read_text()), clean=clean)
    assert mapped
    assert all("memfd:fcn-pixels" in maps and str(tmp_path) not in maps for maps in mapped)


def test_without_such_memory_all_go_through_the_pipe(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    decoded(folder, lambda _: None, is_shared=False)

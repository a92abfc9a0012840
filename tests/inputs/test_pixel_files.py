"""Pixels in files: whole as long as anyone has them, in files that are used again, and bounded in number."""

from __future__ import annotations

import errno
import multiprocessing
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn_cli.inputs import pixel_files
from fcn_cli.inputs.pixel_files import FilePixels, InUse, MappedFiles, PixelFiles, Pixels

pytestmark = pytest.mark.skipif(os.name != "posix", reason="elsewhere only large photos are in files")

UNIT = 256 << 10


class Ends(NamedTuple):
    """Both ends of the way: two workers' and the main process's."""

    workers: tuple[PixelFiles, PixelFiles]
    main: MappedFiles
    released: list[int]


def ends(directory: Path | str) -> Ends:
    in_use = InUse(multiprocessing.get_context(), 2)
    released: list[int] = []
    workers = PixelFiles(str(directory), in_use, 0), PixelFiles(str(directory), in_use, 1)
    return Ends(workers, MappedFiles(in_use, released.append), released)


def shape_of(units: int) -> tuple[int, int, int]:
    return (units * 4, UNIT // 12 + 1, 3)


def sent(files: PixelFiles, units: int, value: int) -> Pixels | FilePixels:
    pixels = files.allocate(shape_of(units))
    pixels[:] = value
    return files.pass_on(pixels)


def received(main: MappedFiles, part: Pixels | FilePixels) -> Pixels:
    return main.pixels(part) if isinstance(part, FilePixels) else part


@settings(max_examples=150)
@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 1),
            st.integers(1, 5),
            st.sampled_from(["send", "send", "send", "fail", "drop", "view"]),
            st.integers(0, 50),
        ),
        max_size=60,
    ),
    kept_units=st.integers(0, 20),
    numbers=st.integers(1, 6),
)
def test_no_pixels_change_while_anyone_has_them(
    steps: list[tuple[int, int, str, int]], kept_units: int, numbers: int
) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as directory:
        patch.setattr(pixel_files, "KEPT_BYTES", 2 * kept_units * UNIT)
        patch.setattr(pixel_files, "_FILES_PER_WORKER", numbers)
        both = ends(directory)
        held: list[tuple[Pixels, int]] = []
        total = 0
        for value, (worker, units, what, which) in enumerate(steps):
            files = both.workers[worker]
            if what == "send":
                part = sent(files, units, value % 251)
                # Nothing is in a file that could be in none, and nothing else is in memory.
                assert isinstance(part, FilePixels)
                pixels = received(both.main, part)
                assert pixels.shape == shape_of(units)
                total += pixels.nbytes
                held.append((pixels, value % 251))
                del pixels
            elif what == "fail":
                files.allocate(shape_of(units))[:] = 255
            elif held and what == "drop":
                del held[which % len(held)]
            elif held:
                place = which % len(held)
                whole, number = held[place]
                held[place] = whole.reshape(-1)[which // 2 :], number
                del whole
            files.take_back()
            assert all((pixels == number).all() for pixels, number in held)
        # Mapped files have no names any more; those of failed photos wait to be used.
        assert len(list(Path(directory).iterdir())) <= 2 * numbers
        held.clear()
        assert sum(both.released) == total


def test_a_file_is_used_again_once_its_pixels_are_gone(tmp_path: Path) -> None:
    both = ends(tmp_path)
    files = both.workers[0]
    first = sent(files, 2, 1)
    pixels = received(both.main, first)
    second = sent(files, 2, 2)
    assert isinstance(first, FilePixels)
    assert isinstance(second, FilePixels)
    assert second.path != first.path
    view = pixels[0]
    del pixels
    assert sent(files, 2, 3) not in {first, second}
    assert (view == 1).all()
    assert not both.released
    del view
    assert both.released == [2 * 4 * (UNIT // 12 + 1) * 3]
    # A smaller photo fits too.
    assert sent(files, 1, 4) == first._replace(shape=shape_of(1))


def test_a_file_that_is_too_small_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_files, "KEPT_BYTES", 2 * 6 * UNIT)
    both = ends(tmp_path)
    files = both.workers[0]
    received(both.main, sent(files, 3, 1))
    larger = sent(files, 4, 2)
    assert isinstance(larger, FilePixels)
    assert larger.number >= 0
    pixels = received(both.main, larger)
    # There is no room for another one to keep: it is used once.
    once = sent(files, 4, 3)
    assert isinstance(once, FilePixels)
    assert once.number < 0
    other = received(both.main, once)
    assert (pixels == 2).all()
    assert (other == 3).all()
    assert not list(tmp_path.iterdir())


def test_the_file_of_a_photo_that_failed_is_free(tmp_path: Path) -> None:
    files = ends(tmp_path).workers[0]
    files.allocate(shape_of(2))
    files.take_back()
    names = os.listdir(tmp_path)
    files.allocate(shape_of(2))
    assert os.listdir(tmp_path) == names


def test_on_a_full_disk_pixels_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    part = sent(ends(tmp_path).workers[0], 2, 7)
    assert isinstance(part, np.ndarray)
    assert (part == 7).all()
    assert not list(tmp_path.iterdir())


def test_small_images_are_not_in_files(tmp_path: Path) -> None:
    files = ends(tmp_path).workers[0]
    assert isinstance(files.pass_on(files.allocate((100, 100, 3))), np.ndarray)
    assert not list(tmp_path.iterdir())

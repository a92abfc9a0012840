"""Images are decoded in processes with bounds on memory and time, whatever they are decoded for."""

from __future__ import annotations

import multiprocessing
import os
import re
import struct
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from fcn_cli.common import resources
from fcn_cli.common.errors import FailureKind, ImageError
from fcn_cli.inputs import decoder, workers
from fcn_cli.inputs.decode_options import DecodeOptions
from fcn_cli.inputs.decode_pool import DecodePool
from fcn_cli.inputs.decoder import DecodeSettings
from fcn_cli.inputs.discovery import InputRequest, discover

from ..conftest import SMALL, Fcn, MakeImages
from .calls import answers, dies, paints, waits


@pytest.mark.long
def test_the_main_process_decodes_no_image(
    fcn: Fcn, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It might be another one by now."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("decoded in the main process")

    make_images(["a.png", "sub/b.jpg"])
    fcn("segment", "made", *SMALL, "-o", "out", "--write", "masks")
    fcn("segment", "made", *SMALL, "-o", "evaluated", "--write", "masks", "--keep-extension")
    monkeypatch.setattr(decoder, "_opened", refuse)
    fcn("segment", "made", *SMALL, "-o", "out", "--write", "masks,overlay,cutout", "--report")
    assert len(list(Path("out/report").rglob("*-large-*.jpg"))) == 2
    fcn("export", "out", "--format", "voc", "-o", "exported")
    # Their sizes are measured in workers, which begin anew here.
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda **_: "forkserver")
    fcn("evaluate", "made", "evaluated/masks", "--predictions", "evaluated", "--report", "page")
    assert len(list(Path("page").rglob("*-large-*.jpg"))) == 2


def large_metadata(path: Path, size: int) -> None:
    """Write a small TIFF with one tag of a size in bytes, of which the disk has none."""
    entries = [
        *((tag, 4, 1, 1) for tag in (256, 257)),
        *((258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 4)),
        *((277, 3, 1, 1), (278, 4, 1, 1), (279, 4, 1, 1)),
        (65000, 7, size, 4096),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + directory + bytes(4))
    os.truncate(path, 4096 + size)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limit on private memory")
def test_metadata_take_no_more_than_a_share_of_memory(
    make_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "available_memory", lambda: 800 << 20)
    folder = make_images(["a.png", "z.png"])
    for name in ("m.tif", "n.tif"):
        large_metadata(folder / name, 400 << 20)
    with DecodePool(
        discover(InputRequest([str(folder)])).sources, DecodeSettings(DecodeOptions(40)), 2
    ) as pool:
        got = {image.source.image: image.failure and image.failure.kind for image in pool if image}
    out_of_memory = FailureKind.OUT_OF_MEMORY
    assert got == {"a.png": None, "m.tif": out_of_memory, "n.tif": out_of_memory, "z.png": None}
    monkeypatch.setattr(workers, "_SHARE", 1 / 4)
    monkeypatch.setattr(workers, "_KNOWN_SECONDS", 0)
    with pytest.raises(ImageError, match="not enough memory"):
        workers.decode_for_people(folder / "m.tif")
    assert (
        workers.decode_for_people(folder / "a.png").image.size
        == decoder.decode_here(folder / "a.png").image.size
    )


@pytest.mark.long
def test_a_process_that_hangs_or_dies_answers_no_other_call() -> None:
    pids = [os.getpid()]
    for function, seconds, text in (
        (waits, 0.5, "the decoder did not finish within 0.5 s"),
        (dies, 60, "the decoder crashed (SIGKILL)"),
    ):
        pid, _ = workers.call(answers, max_pixels=1, seconds=60)
        assert pid not in pids
        pids.append(pid)
        with pytest.raises(ImageError, match=re.escape(text)):
            workers.call(function, max_pixels=1, seconds=seconds)
    assert workers.call(answers, max_pixels=1, seconds=60)[0] not in pids


@pytest.mark.parametrize(
    ("height", "width"), [(3, 5), (500, 700), (6000, 8000)], ids=["by the pipe", "in memory", "in a file"]
)
def test_the_pixels_of_calls_are_whole_whatever_comes_of_their_process(height: int, width: int) -> None:
    images = [
        workers.call(paints, value, height, width, max_pixels=1, seconds=60)[1] for value in range(1, 4)
    ]
    with pytest.raises(ImageError, match="the decoder crashed"):
        workers.call(dies, max_pixels=1, seconds=60)
    for value, pixels in enumerate(images, start=1):
        assert pixels is not None
        assert pixels.shape == (height, width, 3)
        assert pixels.min() == pixels.max() == value


@pytest.mark.parametrize("version", [1, 2])
def test_available_memory_is_the_cgroups(monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    files = {
        "/proc/meminfo": "MemAvailable: 9000 kB\n",
        "/proc/self/cgroup": "3:cpu:/\n2:memory:/a/b\n0::/x\n" if version == 1 else "0::/a/b\n",
    }
    if version == 1:
        files["/sys/fs/cgroup/memory/a/memory.limit_in_bytes"] = "5000\n"
        files["/sys/fs/cgroup/memory/a/memory.usage_in_bytes"] = "3000\n"
        files["/sys/fs/cgroup/memory/a/memory.stat"] = "cache 900\ninactive_file 700\n"
    else:
        files["/sys/fs/cgroup/a/b/memory.max"] = "max\n"
        files["/sys/fs/cgroup/a/memory.max"] = "5000\n"
        files["/sys/fs/cgroup/a/memory.current"] = "3000\n"
        files["/sys/fs/cgroup/a/memory.stat"] = "inactive_file 700\n"
    monkeypatch.setattr(resources, "_read", lambda path: files.get(str(path), ""))
    assert resources.available_memory() == 2700

"""Every command over output directories that somebody else prepared: none touches what is outside, or hangs.

``make hostile-test`` runs these; each directory meets every command, in a process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..conftest import SMALL, command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SECONDS, MEMORY = 30, 2 << 30
HUGE = 40_000
PRECIOUS = "precious.txt"


class Place:
    """A directory that holds the output directory ``out``, images, and what nobody may touch."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.out = root / "out"
        self.outside = root / "outside"
        self.temporary = root / "tmp"

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / "manifest.jsonl").read_text().splitlines()]

    def append(self, **changed: object) -> None:
        """Append the first record with some fields changed."""
        with (self.out / "manifest.jsonl").open("a") as journal:
            journal.write(json.dumps(self.lines()[0] | changed) + "\n")

    def link(self, name: str, target: Path | str) -> None:
        """Make a link in the output directory, in the place of what is there."""
        self.take_away(name)
        (self.out / name).symlink_to(target)

    def take_away(self, name: str) -> None:
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def everything_else(self) -> dict[str, tuple[int, int, bytes]]:
        """Return mode, time of change and content of all that is not in an output directory."""
        found = {}
        for folder in (self.outside, self.root / "photos"):
            for path in [folder, *sorted(folder.rglob("*"))]:
                status = path.lstat()
                content = b""
                if path.is_symlink():
                    content = os.fsencode(os.readlink(path))
                elif path.is_file():
                    content = path.read_bytes()
                elif path.is_dir():
                    content = "/".join(sorted(os.listdir(path))).encode()
                found[str(path)] = status.st_mode, status.st_mtime_ns, content
        return found


def records(place: Place) -> None:
    gone_records(place)
    ok_records(place)


def gone_records(place: Place) -> None:
    """The names of files to remove lead outside."""
    for number, name in enumerate(
        (
            str(place.outside / PRECIOUS),
            f"masks/../../outside/{PRECIOUS}",
            f"masks/./../../outside/{PRECIOUS}",
            f"../outside/{PRECIOUS}",
            "..",
            ".",
            "",
            "manifest.jsonl",
            "masks/\0",
        )
    ):
        place.append(image=f"gone{number}.png", status="gone", outputs=[name], output_bytes=[1])


def ok_records(place: Place) -> None:
    """The names of files to read, or to write again, lead outside."""
    for number, name in enumerate(
        (
            str(place.outside / "mask.png"),
            "masks/../../outside/mask.png",
            "/dev/zero",
            "masks/../settings.json",
        )
    ):
        size = (place.outside / "mask.png").stat().st_size
        place.append(image=f"ok{number}.png", outputs=[name], output_bytes=[size])
    # The recorded image itself is not one.
    for number, path in enumerate(("/dev/zero", str(place.outside / "pipe"), "\0", "../../x")):
        place.append(image=f"at{number}.png", path=path, source=path)
    place.append(image="../../outside/evil.png", outputs=["masks/evil.png"])
    place.append(image="a.png", classes={"999": -5}, width=-1, height=10**30, mean_confidence="x")


def links_to_directories(place: Place) -> None:
    """What is below the directory are links to directories outside."""
    for name in ("masks", "overlay", "report", "manifest.parts"):
        place.link(name, place.outside / "folder")


def links(place: Place) -> None:
    """What is in the directory are links to files outside; in its report, to directories."""
    for name in ("report/images", "report/page-0123456789abcdef", "report/labels"):
        place.link(name, place.outside / "folder")
    for name in (
        "stats.csv", "summary.json", "run.json", "classes.json", "report.html", ".fcn.lock",
        ".fcn.lock.1-of-2", ".fcn.holder.json", "manifest.1-of-2.jsonl", "masks/a.png", "color/a.png",
        ".fcn-1-x.tmp",
    ):  # fmt: skip
        place.link(name, place.outside / PRECIOUS)


def a_link_as_journal(place: Place) -> None:
    shutil.copy(place.out / "manifest.jsonl", place.outside / "journal.jsonl")
    with (place.outside / "journal.jsonl").open("a") as torn:
        torn.write('{"image": "torn')
    place.link("manifest.jsonl", place.outside / "journal.jsonl")


def pipes(place: Place) -> None:
    for name in (
        "run.json", "classes.json", "summary.json", ".fcn.holder.json", "stats.csv", "report.html",
        "manifest.1-of-2.jsonl", "masks/a.png", "color/b.png", ".fcn.lock",
    ):  # fmt: skip
        place.take_away(name)
        os.mkfifo(place.out / name)


def a_pipe_as_settings(place: Place) -> None:
    place.take_away("settings.json")
    os.mkfifo(place.out / "settings.json")


def a_pipe_as_journal(place: Place) -> None:
    place.take_away("manifest.jsonl")
    os.mkfifo(place.out / "manifest.jsonl")


def endless(place: Place) -> None:
    for name in ("run.json", "classes.json", ".fcn.holder.json", "masks/a.png"):
        place.link(name, "/dev/zero")
    for name in ("summary.json", "color/b.png", "run.1-of-2.json"):
        place.take_away(name)
        with (place.out / name).open("wb") as sparse:
            sparse.truncate(20 << 30)


def sparse_settings(place: Place) -> None:
    with (place.out / "settings.json").open("r+b") as sparse:
        sparse.truncate(20 << 30)


def endless_and_deep(place: Place) -> None:
    endless(place)
    deep_json(place)


def deep_json(place: Place) -> None:
    deep = "[" * 200_000
    for name in ("run.2-of-2.json", "stats.csv", ".fcn.holder.1-of-2.json"):
        (place.out / name).write_text(deep)
    with (place.out / "manifest.jsonl").open("a") as journal:
        journal.write('{"image": "deep.png", "source": ' + deep + "\n")


def huge_masks(place: Place) -> None:
    """A small file claims 1.6 gigapixels: with its honest record, and with a record that says the same."""
    data = one_colour_png(HUGE, HUGE)
    for record in place.lines():
        (place.out / record["outputs"][0]).write_bytes(data)
    first = place.lines()[0]
    place.append(image=first["image"], output_bytes=[len(data), *first["output_bytes"][1:]])
    last = place.lines()[1]
    with (place.out / "manifest.jsonl").open("a") as journal:
        claimed = {"width": HUGE, "height": HUGE, "classes": {"0": HUGE * HUGE}}
        sizes = [len(data), *last["output_bytes"][1:]]
        journal.write(json.dumps(last | claimed | {"output_bytes": sizes}) + "\n")


def one_colour_png(width: int, height: int) -> bytes:
    """Return a grey PNG of zeros, built row by row."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = bytes((width + 1) * 1000)
    pixels = b"".join([*(packer.compress(rows) for _ in range(height // 1000)), packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


PREPARED: tuple[Callable[[Place], None], ...] = (
    records,
    links,
    links_to_directories,
    a_link_as_journal,
    pipes,
    a_pipe_as_settings,
    a_pipe_as_journal,
    endless_and_deep,
    sparse_settings,
    huge_masks,
)

SEGMENT = ("segment", "photos", *SMALL, "-o", "out")
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("status", "out"),
    ("list", "out"),
    ("list", "out", "--status", "failed"),
    ("verify", "out"),
    ("report", "out"),
    ("export", "out", "--format", "coco", "-o", "coco"),
    ("export", "out", "--format", "voc", "-o", "voc"),
    ("export", "out", "--format", "yolo", "-o", "yolo"),
    ("compare", "out", "other"),
    ("compare", "out/masks", "other/masks"),
    (*SEGMENT, "--dry-run"),
    (*SEGMENT, "--shard", "1/2"),
    SEGMENT,
    (*SEGMENT, "--palette", "voc", "--write", "masks,color,overlay", "--report"),
    (*SEGMENT, "--prune=force"),
    (*SEGMENT, "--overwrite"),
    # A search that meets the prepared directory.
    ("segment", ".", *SMALL, "-o", "new", "--dry-run"),
    ("evaluate", "photos", "other/masks", "--predictions", "out"),
)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a place whose output directories ``out`` and ``other`` are as a run leaves them."""
    root = tmp_path_factory.mktemp("honest")
    (root / "photos").mkdir()
    from PIL import Image

    samples = Path(__file__).parent.parent.parent / "sample_images"
    for name, sample in (("a.png", "chelsea.png"), ("b.png", "coffee.png")):
        with Image.open(samples / sample) as opened:
            opened.convert("RGB").resize((90, 60)).save(root / "photos" / name)
    for output in ("out", "other"):
        line = command("segment", "photos", *SMALL, "-o", output, "--report")
        subprocess.run(line, cwd=root, check=True, capture_output=True)
    return root


@pytest.fixture
def place(honest: Path, tmp_path: Path) -> Iterator[Place]:
    root = tmp_path / "place"
    shutil.copytree(honest, root)
    place = Place(root)
    # Its records are of the images beside it.
    for output in ("out", "other"):
        journal = root / output / "manifest.jsonl"
        journal.write_text(journal.read_text().replace(str(honest), str(root)))
    (place.outside / "folder").mkdir(parents=True)
    place.temporary.mkdir()
    (place.outside / PRECIOUS).write_text("what somebody needs\n")
    (place.outside / "folder" / "photo-0123456789abcdef.jpg").write_text("a picture\n")
    (place.outside / "folder" / "page.js").write_text("a script\n")
    (place.outside / "folder" / ".fcn-1-2-3.tmp").write_text("no file of ours\n")
    shutil.copy(root / "out/masks/a.png", place.outside / "mask.png")
    os.mkfifo(place.outside / "pipe")
    (place.outside / PRECIOUS).chmod(0o640)
    yield place
    shutil.rmtree(root, ignore_errors=True)


@pytest.mark.parametrize("prepare", PREPARED, ids=lambda prepare: prepare.__name__)
def test_no_command_touches_what_is_outside(place: Place, prepare: Callable[[Place], None]) -> None:
    prepare(place)
    before = place.everything_else()
    found = []
    for arguments in COMMANDS:
        fault = fault_of(place, arguments)
        if place.everything_else() != before:
            changed = {name for name in before if place.everything_else().get(name) != before[name]}
            fault = f"{fault or ''} changed {sorted(changed)}"
            before = place.everything_else()
        if fault:
            found.append(f"{' '.join(arguments)}: {fault}")
    assert not found, "\n".join(found)


# A process begins with the peak of the one that it was forked from: this one may be large.
MEASURED = """
import os, sys
_, status, used = os.wait4(os.spawnv(os.P_NOWAIT, sys.argv[2], sys.argv[2:]), 0)
with open(sys.argv[1], "w") as file:
    file.write(str(used.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status) % 256)
"""


def fault_of(place: Place, arguments: tuple[str, ...]) -> str | None:
    """Run a command; return what must not be of how it went, or None."""
    environment = {**os.environ, "TMPDIR": str(place.temporary), "HOME": str(place.outside)}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    line = command(*arguments)
    log = place.root / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", MEASURED, str(place.root / "memory"), *line],
            cwd=place.root,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            code = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            return f"longer than {SECONDS} s"
    said = log.read_text(errors="replace")
    used = int((place.root / "memory").read_text()) << 10 if sys.platform == "linux" else 0
    if code not in {0, 1, 2, 3, 4, 5} or "Traceback" in said:
        return f"exit {code}: {said[-300:]}"
    return f"{used >> 20} MB" if used > MEMORY else None

"""How long a run takes to plan, and how much memory, with hundreds of thousands of images.

``python -m benchmarks.planning [--images 300000] [--folder DIR]`` makes empty files with the names of images,
and an output directory with their records and (empty) files as a finished run leaves it. Then it runs
commands that only plan, and prints each one's CPU time and peak memory. CPU time (user and system) is what
compares on a machine that does other work.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import against
from benchmarks.against import Figure
from fcn_cli.common.output_layout import DEFAULT_OUTPUT_TYPES, JOURNAL_FILE, output_file
from fcn_cli.outputs.json_text import to_line
from fcn_cli.outputs.record import Record
from fcn_cli.outputs.settings import read_fingerprint

SAMPLES = Path(__file__).parent.parent / "sample_images"
_PER_ALBUM = 1000
_BACKBONE = "efficientnet_lite0"


def make(folder: Path, count: int) -> None:
    """Make images and the output directory of a run that has done them all."""
    images, output = folder / "photos", folder / "out"
    folder.mkdir(parents=True, exist_ok=True)
    # One real image, for the settings that this version's defaults stand for.
    list(measure(folder, "", ["segment", str(SAMPLES / "chelsea.png"), "--backbone", _BACKBONE, "-o", "out"]))
    fingerprint = read_fingerprint(output)
    assert fingerprint is not None
    with (output / JOURNAL_FILE).open("w") as journal, (folder / "list.txt").open("w") as listed:
        for first in range(0, count, _PER_ALBUM):
            album = f"2026/album {first // _PER_ALBUM:04}"
            for directory in (images, *(output / kind for kind in DEFAULT_OUTPUT_TYPES)):
                (directory / album).mkdir(parents=True)
            for number in range(first, min(first + _PER_ALBUM, count)):
                image = f"{album}/IMG_{number:07}.jpg"
                names = [
                    output_file(f"{image.removesuffix('.jpg')}.png", kind) for kind in DEFAULT_OUTPUT_TYPES
                ]
                for path in (images / image, *(output / name for name in names)):
                    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
                status = (images / image).stat()
                record = Record(
                    image=image,
                    source=f"photos/{image}",
                    path=str(images / image),
                    status="ok",
                    fingerprint=fingerprint,
                    size_bytes=status.st_size,
                    mtime_ns=status.st_mtime_ns,
                    width=500,
                    height=375,
                    classes={0: 120000, 8: 30000, 15: 37000, 20: 500},
                    outputs=tuple(names),
                    output_bytes=(0, 0),
                    looks={"color": "hub"},
                    device="cpu",
                    precision="fp32",
                    finished="2026-11-24T03:00:00Z",
                    seconds=0.41,
                    notes=(),
                    error=None,
                    mean_confidence=None,
                )
                journal.write(to_line(record.as_json()) + "\n")
                listed.write(f"photos/{image}\n")


def measure(folder: Path, title: str, arguments: Sequence[str]) -> Iterator[Figure]:
    """Run one command; yield its CPU time and its peak memory."""
    line = [sys.executable, "-m", "fcn_cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(
        line, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        said = process.stderr.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{title}: exit {process.returncode}: {said}")
    yield Figure(title, usage.ru_utime + usage.ru_stime, "s of CPU")
    yield Figure(f"{title}, peak", usage.ru_maxrss / 1024, "MB")


def figures(options: argparse.Namespace, folder: Path) -> Iterator[Figure]:
    """Make the material where it is missing, and measure each command once."""
    if not (folder / "out").exists():
        make(folder, options.images)
    segment = ("segment", "--backbone", _BACKBONE)
    listed = ("--files-from", "list.txt", "--root", "photos")
    commands = {
        "new, --dry-run": [*segment, "photos", "-o", "new", "--dry-run"],
        "new, a list, --dry-run": [*segment, *listed, "-o", "new", "--dry-run"],
        "all done, --dry-run": [*segment, "photos", "-o", "out", "--dry-run"],
        "all done, --dry-run --shard 1/8": [*segment, "photos", "-o", "out", "--dry-run", "--shard", "1/8"],
        "all done, nothing to do": [*segment, "photos", "-o", "out"],
        "merge": ["merge", "out"],
        "status": ["status", "out"],
        "list": ["list", "out"],
    }
    for title, arguments in commands.items():
        yield from measure(folder, title, arguments)


def main() -> None:
    """Make the material and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=300_000)
    against.add_options(parser, rounds=3)
    against.main(parser, figures, None)


if __name__ == "__main__":
    main()

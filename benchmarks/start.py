"""What starting costs: whole commands on little work, with the preview network and one thread.

Processor time is what counts, of the command and its workers; wall time says as much only on a quiet machine.
For comparison: importing PyTorch alone, and the network's own work on the image of the pipe.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import against
from benchmarks.against import Figure
from benchmarks.material import SAMPLES

IMAGE = SAMPLES / "chelsea.png"
NETWORK = ("--backbone", "efficientnet_lite0", "--offline", "--threads", "1")
OWN_WORK = f"""
import time
from PIL import Image
from fcn_cli import Segmenter
segmenter, image = Segmenter("efficientnet_lite0", threads=1), Image.open({str(IMAGE)!r}).convert("RGB")
segmenter(image)
started = time.process_time(), time.perf_counter()
segmenter(image)
print(time.process_time() - started[0], time.perf_counter() - started[1])
"""


def main() -> None:
    """Print the seconds of each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    against.add_options(parser)
    against.main(parser, figures, None)


def figures(_options: argparse.Namespace, folder: Path) -> Iterator[Figure]:
    """Measure each command once."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        into = ("fcn_cli", "segment", str(SAMPLES), "-q", "-o", f"{temporary}/out", *NETWORK)
        for name, arguments in (
            ("import torch", ("-c", "import torch")),
            ("fcn --help", ("-m", "fcn_cli", "--help")),
            ("one image in a pipe", ("-m", "fcn_cli", "segment", "-", "-o", "-", "-q", *NETWORK)),
            ("four images", ("-m", *into)),
            ("nothing to do", ("-m", *into)),
        ):
            cpu, wall = seconds(*arguments)
            yield Figure(f"{name}, CPU", cpu, "s")
            yield Figure(f"{name}, wall", wall, "s")
    done = subprocess.run([sys.executable, "-c", OWN_WORK], capture_output=True, text=True, check=True)
    cpu, wall = map(float, done.stdout.split())
    yield Figure("the network's own work, CPU", cpu, "s")
    yield Figure("the network's own work, wall", wall, "s")


def seconds(*arguments: str) -> tuple[float, float]:
    """Run Python with an image on stdin; return all its processes' processor time, and the wall time."""
    started = time.perf_counter()
    with IMAGE.open("rb") as image:
        running = subprocess.Popen([sys.executable, *arguments], stdin=image, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(running.pid, 0)
    wall = time.perf_counter() - started
    running.returncode = os.waitstatus_to_exitcode(status)
    assert running.returncode == 0, arguments
    return usage.ru_utime + usage.ru_stime, wall


if __name__ == "__main__":
    main()

"""Nights of cron, as somebody reads them in the morning: the mail, ``fcn status --max-age`` and the log.

The test leaves them in ``mornings.txt`` in its temporary directory.
"""

from __future__ import annotations

import json
import re
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ..conftest import SMALL, Fcn, Finished, MakeImages, command, run_on_a_small_disk

STAMP = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d ", re.MULTILINE)


class Log:
    """The log file, read as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    def new(self) -> list[str]:
        """Return the lines since the last call, without their times."""
        text = self._path.read_text()[self._read :]
        self._read += len(text)
        return STAMP.sub("", text).splitlines()


class Mornings:
    """What somebody reads each morning, one after the other."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, title: str, night: Finished, status: Finished, log: list[str]) -> None:
        with self._path.open("a") as stream:
            stream.write(f"== night {title}: exit code {night.code}\n-- mail\n{night.stderr}")
            stream.write(f"-- status, exit code {status.code}\n{status.stdout}")
            stream.write("\n".join(["-- log", *log, ""]))


@pytest.mark.long
def test_what_is_known_in_the_morning(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    made = make_images(["a.png", "b.png"])
    mornings, log = Mornings(tmp_path / "mornings.txt"), Log(tmp_path / "fcn.log")
    line = ("segment", made, *SMALL, "-o", "out", "-q", "--log-file", tmp_path / "fcn.log")
    ask = ("status", "out", "--max-age", "26h")

    night, status = fcn(*line), fcn(*ask)
    mornings.add("1, two new images", night, status, lines := log.new())
    assert night.stderr == ""
    assert "with exit code 0\n2 images: 2 done, 0 failed\n" in status.stdout
    assert [bool(re.search(rf"{made}/{name}.png: done, 6", "\n".join(lines))) for name in "ab"] == [
        True,
        True,
    ]
    assert lines[-1].startswith("2 images: 2 done, 0 failed; ")

    first_end = json.loads((tmp_path / "out/run.json").read_text())["end"]
    night, status = fcn(*line), fcn(*ask)
    mornings.add("2, nothing new", night, status, lines := log.new())
    assert night.stderr == ""
    assert "with exit code 0\n2 images: 2 done, 0 failed\n" in status.stdout
    assert json.loads((tmp_path / "out/run.json").read_text())["end"] >= first_end
    assert lines == [
        "2 images: 0 to segment, 0 to complete, 2 done before, 0 failed before and unchanged",
        "nothing to do: all 2 images were done before, see out",
    ]

    (made / "broken.png").write_bytes(b"?")
    (made / "b.png").unlink()
    night, status = fcn(*line, code=1), fcn(*ask, code=1)
    mornings.add("3, one broken image, one is gone", night, status, lines := log.new())
    failure = f"no mask for {made}/broken.png: not an image in a supported format or variant"
    assert night.stderr == f"fcn: {failure}\n"
    assert "with exit code 1\n2 images: 1 done, 1 failed\n" in status.stdout
    assert lines.count(failure) == 1
    assert lines[0] == "2 images: 1 to segment, 0 to complete, 1 done before, 0 failed before and unchanged"
    assert lines[-1] == "2 images: 0 done, 1 done before, 1 failed; see out"
    assert "1 recorded image is gone; see --prune" in lines

    # The disk of the last night has room for a few of 60 new images.
    make_images([f"new{number:02}.png" for number in range(60)], size=(300, 300))
    small = tmp_path / "small"
    small.mkdir()
    cron, monitor = shlex.join(command(*line)), shlex.join(command(*ask))
    script = f"cp -a ../out/. out/; {cron}; code=$?; {monitor}; echo $?; exit $code"
    night = run_on_a_small_disk(["sh", "-c", script], small, kilobytes=240)
    text, _, code = night.stdout[:-1].rpartition("\n")
    status = Finished(int(code), f"{text}\n", "")
    mornings.add("4, a full disk", night, status, lines := log.new())
    assert night.code == 5
    warning, full = night.stderr.splitlines()
    assert warning.startswith("fcn: out: 60 images will need about ")
    assert warning.endswith(" free: the run will end early, with exit code 5")
    assert "cannot be written (No space left on device)" in full
    assert "broken.png" not in night.stderr
    assert status.code == 1
    assert f"with exit code 5: {full.removeprefix('fcn: ')}\n" in status.stdout
    assert re.search(r"\n62 images: \d+ done, 1 failed, \d+ left\n", status.stdout)
    assert "to continue, run the same fcn segment command again" in status.stdout
    assert lines.count(failure) == 1
    assert lines[-1] == full.removeprefix("fcn: ")

    # Cron is dead since yesterday: the monitor says so, whatever the last run had to say.
    run = json.loads((tmp_path / "out/run.json").read_text())
    ended = datetime.now(UTC) - timedelta(hours=27)
    (tmp_path / "out/run.json").write_text(json.dumps({**run, "end": f"{ended:%Y-%m-%dT%H:%M:%SZ}"}))
    status = fcn(*ask, code=1)
    assert status.stdout.endswith("no run has ended in the last 1 d 2 h\n")

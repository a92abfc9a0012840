"""The commands and programs of README and guide run as they stand there, on small images."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from fcn_cli.models.registry import BACKBONES, BundledWeights

from .conftest import SAMPLES, command, need, run_line

ROOT = Path(__file__).parent.parent
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/guide.md")}

# What is in a line that does not run here, and why.
NOT_RUN = {
    "pip install": "changes the environment that the tests run in; the Containerfile's steps are tested",
    "pip wheel": "tests/test_distribution.py builds one",
    "uv tool": "uv is not installed",
    "pipx": "pipx is not installed",
    "venv": "tests/test_distribution.py makes one",
    "--install-completion": "asks which shell started it; tests/cli/test_completion.py has one",
    "weights fetch": "downloads official weights; make official-test does",
    "FCN_WEIGHTS_DIR": "needs official weights",
    "resnet101 --size": "takes a minute",
    "--backbone resnet101": "needs official weights",
    "https://": "needs the internet",
    "s3://": "needs a bucket; tests/stores has a server",
    "--ray": "tests/cluster starts Ray",
    "--watch": "does not end; tests/runs/test_watch.py ends it",
    "/data/": "a line of a crontab or a unit; tests/cli/test_cron.py runs that of the README",
    "cv2": "OpenCV is not a dependency",
    **dict.fromkeys(
        ("--truth-", "--ignore-index", "--labelmap", "VOC2012", "cvat/", "val2017"),
        "needs ground truth of that form; tests/evaluation/test_truth_forms.py makes it",
    ),
}
# What the pages leave to the reader, made small.
NETWORK = {"resnet50": "efficientnet_lite0", ", tile=520": ""}
STARTS = ("fcn ", "find ", "curl ", "mkdir ", "pip ", "uv ", "pipx ", "python3 ", "wait", "FCN_")


def sections(page: str) -> Iterator[tuple[str, str]]:
    for section in PAGES[page].split("\n## ")[1:]:
        yield section.split("\n")[0], section


def scripts(text: str) -> Iterator[str]:
    """Yield each paragraph of commands or of Python, and the commands in the last cells of tables."""
    for paragraph in re.findall(r"(?:^ {4}.*\n)+|^\|.*\|$", text, re.MULTILINE):
        if paragraph.startswith("|"):
            lines = re.findall(r"`(fcn \S+ [^`]+)`", paragraph.strip("|").rsplit(" | ")[-1])
        else:
            lines = [line.removeprefix("    ") for line in paragraph.splitlines()]
            if not lines[0].startswith(("import ", "from ")):
                lines = [line for line in lines if line.startswith(STARTS)]
        kept = [line for line in lines if not any(part in line for part in NOT_RUN)]
        if kept:
            yield "".join(f"{line}\n" for line in kept)


SECTIONS = [(page, title) for page in PAGES for title, text in sections(page) if any(scripts(text))]


def test_what_is_not_run_is_shown() -> None:
    """A reason whose line has gone goes, too."""
    shown = "".join(PAGES.values())
    assert [part for part in NOT_RUN if part not in shown] == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make what the pages speak of: images, a checkpoint with its card, and a finished output directory."""
    folder = tmp_path / "reader"
    shutil.copytree(SAMPLES, folder / "sample_images")
    with Image.open(SAMPLES / "chelsea.png") as cat:
        for name in (
            "cat.jpg",
            "more/cat.png",
            "photos/cat.jpg",
            "photos/2026-01/a.jpg",
            "aerial/a.jpg",
            "mosaics/a.tif",
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            cat.convert("RGB").save(folder / name)
    weights = BACKBONES["efficientnet_lite0"].weights
    assert isinstance(weights, BundledWeights)
    state = torch.load(weights.path, weights_only=True)
    last = {name: state[name][[0, 8, 15]] for name in ("classifier.4.weight", "classifier.4.bias")}
    torch.save(state | last, folder / "mine.pth")
    (folder / "names.txt").write_text("rest\nroad\nwater\n")
    for card in ("mine.toml", "card.toml"):
        (folder / card).write_text(toml_of(PAGES["docs/guide.md"]))
    (folder / "bin").mkdir()
    script = folder / "bin/fcn"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {shlex.join(command())} "$@"\n')
    script.chmod(0o755)
    shell("fcn segment photos/\n", folder)
    shell("fcn export fcn_output --format masks -o truth\n", folder)
    return folder


def toml_of(guide: str) -> str:
    (card,) = re.findall(r"^ {4}class_names = (?:.*\n    )+.*$", guide, re.MULTILINE)
    return str(card)


def shell(script: str, folder: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "HOME": str(folder),
        "FCN_BACKBONE": "efficientnet_lite0",
        "FCN_RESIZE": "96",
    }
    run_line(["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize(("page", "title"), SECTIONS)
def test_what_a_page_shows_runs(page: str, title: str, folder: Path) -> None:
    need("jq")
    ran = 0
    for script in scripts(dict(sections(page))[title]):
        small = script
        for large, little in NETWORK.items():
            small = small.replace(large, little)
        if script.startswith(("import ", "from ")):
            program = f'paths = ["photos/cat.jpg", "sample_images/README.md"]\n{small}'
            run_line([sys.executable, "-c", program], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)})
        else:
            shell(small, folder)
        ran += 1
    assert ran

"""The Containerfile's steps do what they say, on this system in place of the image that they start from.

No container runtime is needed: each stage is a copy-on-write view of this system's files. Python, PyTorch
and the other packages are this environment's: nothing is downloaded, and the index that the file names is
not asked.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from fcn_cli import __version__

from .conftest import SAMPLES, need
from .installed import link_packages

ROOT = Path(__file__).parent.parent
BASE_PYTHON = Path(sys.base_prefix) / "bin"
# Makes a stage: the files of this system, of which nothing that is written stays.
STAGE = """
stage() {
    mkdir "$1" && mount -t tmpfs stage "$1" && mkdir "$1/upper" "$1/work" "$1/root"
    mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" stage "$1/root" || exit 99
    mount --rbind /proc "$1/root/proc" && mount --rbind /dev "$1/root/dev"
    cp -a packages "$1/root/packages"
    # What they lead to may lie on a disk of its own, which is not in the view.
    [ -e "$1/root$PACKAGES/numpy" ] && [ -e "$1/root$PYTHON/python3" ] || exit 99
    [ -e "$1/root$PYTHON/python" ] || ln -s python3 "$1/root$PYTHON/python"
    # Python may lie in a home directory.
    for place in "$PYTHON" "$PACKAGES"; do
        while [ "$place" != / ]; do chmod o+x "$1/root$place"; place=$(dirname "$place"); done
    done
}
"""


class Instruction(NamedTuple):
    word: str
    text: str


def instructions(text: str) -> Iterator[Instruction]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.partition(" ")
            yield Instruction(word, rest.strip())


FILE = list(instructions((ROOT / "Containerfile").read_text(encoding="utf-8")))


class Build:
    """Turns instructions into a shell script, a stage after the other."""

    def __init__(self, host: dict[str, str]) -> None:
        self.host = host
        self.lines = ["set -e", STAGE]
        self.stages: dict[str, str] = {}
        self.of_all_stages: dict[str, str] = {}
        self.arguments: dict[str, str] = {}
        self.variables: dict[str, str] = {}
        self.root = ""
        self.user = "0:0"
        self.directory = "/"
        self.entry: list[str] = []
        self.volumes: list[str] = []

    def line(self, *words: str) -> None:
        self.lines.append(shlex.join(words))

    def expanded(self, text: str) -> str:
        return string.Template(text).substitute(self.host | self.arguments | self.variables)

    def run(self, *command: str, user: str | None = None) -> None:
        """Add a command as the image's user, in its directory and its environment."""
        environment = self.host | self.arguments | self.variables
        assigned = [f"{name}={value}" for name, value in environment.items()]
        inside = ["sh", "-c", 'cd "$0" && exec "$@"', self.directory, *command]
        self.line("env", "-i", *assigned, "chroot", f"--userspec={user or self.user}", self.root, *inside)

    def add(self, word: str, text: str) -> None:
        match word:
            case "FROM":
                if not self.stages:
                    self.of_all_stages = self.arguments
                image, _, name = string.Template(text).substitute(self.of_all_stages).partition(" AS ")
                assert re.fullmatch(r"docker\.io/library/python:3\.1[1-4]-slim", image)
                self.line("stage", f"stage{len(self.stages)}")
                self.root = f"stage{len(self.stages)}/root"
                self.stages[name] = self.root
                self.arguments, self.variables, self.user, self.directory = {}, {}, "0:0", "/"
            case "ARG":
                name, _, value = text.partition("=")
                self.arguments[name] = self.expanded(value)
            case "ENV":
                for assignment in shlex.split(text):
                    name, _, value = assignment.partition("=")
                    self.variables[name] = self.expanded(value)
            case "RUN":
                self.run("sh", "-c", text)
            case "COPY":
                self.copy(shlex.split(text))
            case "WORKDIR":
                self.directory = text
                self.line("mkdir", "-p", f"{self.root}{text}")
            case "USER":
                self.user = text
            case "VOLUME":
                self.volumes = json.loads(text)
            case "ENTRYPOINT":
                self.entry = json.loads(text)
            case _:
                assert word == "CMD", word

    def copy(self, words: list[str]) -> None:
        """Copy files, and what is in directories."""
        origin = "context"
        if words[0].startswith("--from="):
            origin = self.stages[words.pop(0).removeprefix("--from=")]
        *sources, target = words
        target = f"{self.root}{Path(self.directory) / target}"
        for source in sources:
            path = f"{origin}/{source}"
            is_file = origin == "context" and (ROOT / source).is_file()
            self.line("mkdir", "-p", target)
            self.line("cp", "-a", path if is_file else f"{path}/.", target)


def test_the_build_gets_the_files_that_it_copies_and_no_others() -> None:
    """No weights, outputs and environments of a checkout are sent to the builder."""
    copied = [text.split()[:-1] for word, text in FILE if word == "COPY" and "--from" not in text]
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {name for names in copied for name in names} == allowed


@pytest.mark.slow
def test_its_steps_make_a_command_that_segments_without_being_root(tmp_path: Path) -> None:
    for tool in ("unshare", "chroot", "useradd"):
        need(tool)
    if os.geteuid() != 0:
        pytest.skip("only root can have a view of the system's files to write into")
    ignored = shutil.ignore_patterns("__pycache__")
    (tmp_path / "context").mkdir()
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        path = ROOT / line.removeprefix("!")
        if line.startswith("!") and path.is_dir():
            shutil.copytree(path, tmp_path / "context" / path.name, ignore=ignored)
        elif line.startswith("!"):
            shutil.copy(path, tmp_path / "context")
    link_packages(tmp_path / "packages")
    base = {"PATH": f"{BASE_PYTHON}:/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": "/packages"}
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_ROOT_USER_ACTION": "ignore"}
    build = Build(base | offline)
    for instruction in FILE:
        build.add(*instruction)

    assert build.entry == ["fcn"]
    data = f"{build.root}/data"
    assert {"/data", "/weights"} == set(build.volumes)
    build.line("cp", str(SAMPLES / "chelsea.png"), data)
    build.run(*build.entry, "--version")
    segment = ("segment", "chelsea.png", "--backbone", "efficientnet_lite0", "--offline", "-o")
    build.run(*build.entry, *segment, "out")
    # As with --user, and as on platforms that pick a number.
    build.run(*build.entry, *segment, "another", user="4321:4321")
    build.run(*build.entry, "verify", "out")
    build.run("sh", "-c", 'touch "$HOME/file" && mkdir -p "$TORCH_HOME/hub/checkpoints"', user="4321:4321")
    build.line("cp", "-a", f"{data}/out", f"{data}/another", ".")
    (tmp_path / "script").write_text("\n".join(build.lines))
    done = subprocess.run(
        ["unshare", "--mount", "sh", "script"],
        cwd=tmp_path,
        env={**os.environ, "PYTHON": str(BASE_PYTHON), "PACKAGES": str(Path(np.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    if done.returncode == 99 or "unshare failed" in done.stderr:
        pytest.skip("cannot have a view of the system's files to write into here")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"fcn {__version__}\n" in done.stdout
    for name, owner in (("out", 10001), ("another", 4321)):
        mask = tmp_path / name / "masks/chelsea.png"
        assert mask.stat().st_uid == owner
        with Image.open(mask) as opened:
            assert opened.size == (451, 300)

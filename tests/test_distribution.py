"""What `pip install` gives: a wheel that works on its own, and an sdist whose tests run."""

from __future__ import annotations

import email
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from fcn_cli import __version__

from .conftest import SAMPLES, Fcn, need
from .installed import link_packages

ROOT = Path(__file__).parent.parent
SOURCE = (
    ".ci", "benchmarks", "docs", "fcn_cli", "sample_images", "tests", ".dockerignore", "CHANGELOG.md",
    "CITATION.cff", "CONTRIBUTING.md", "Containerfile", "LICENSE", "MANIFEST.in", "Makefile", "README.md",
    "SECURITY.md", "pyproject.toml",
)  # fmt: skip


class Built(NamedTuple):
    tree: Path
    sdist: Path
    wheel: Path


def clean_environment(**more: str) -> dict[str, str]:
    """Return the environment without what would let Python find this checkout, or the tool a setting."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FCN_", "PYTEST"))
    }
    return {**kept, **more}


def done(*line: str | Path, cwd: Path, **environment: str) -> str:
    finished = subprocess.run(
        [str(part) for part in line],
        cwd=cwd,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """An sdist of this checkout with one more sub-package, and the wheel that comes from that sdist."""
    for tool in ("build", "setuptools", "pip"):
        pytest.importorskip(tool)
    tree = tmp_path_factory.mktemp("distribution") / "tree"
    tree.mkdir()
    for name in SOURCE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tree)
    deeper = tree / "fcn_cli/added/deeper"
    deeper.mkdir(parents=True)
    (deeper.parent / "__init__.py").touch()
    (deeper / "__init__.py").write_text("FOUND = True\n")
    done(sys.executable, "-m", "build", "--no-isolation", ".", cwd=tree)
    (sdist,) = (tree / "dist").glob("*.tar.gz")
    (wheel,) = (tree / "dist").glob("*.whl")
    return Built(tree, sdist, wheel)


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.long
def test_the_wheel_is_called_fcn_cli_and_has_every_module_and_data_file(built: Built) -> None:
    assert built.wheel.name == f"fcn_cli-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(built.wheel) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        (metadata_name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
        metadata = email.message_from_bytes(wheel.read(metadata_name))
    wanted = {f"fcn_cli/{name}" for name in files_below(built.tree / "fcn_cli")}
    assert names == wanted
    assert {"fcn_cli/py.typed", "fcn_cli/data/fcn_efficientnet_lite0_preview.pth"} < names
    assert metadata["Name"] == "fcn-cli"
    assert "coco" in metadata.get_all("Provides-Extra", [])


@pytest.mark.slow
@pytest.mark.long
def test_the_installed_wheel_works_from_another_directory(built: Built, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    done(sys.executable, "-m", "venv", "--without-pip", home, cwd=tmp_path)
    python = home / "bin/python"
    (site,) = home.glob("lib/python*/site-packages")
    # Everything the tool depends on comes from here, but for the tool itself.
    (site / "dependencies.pth").write_text(f"{link_packages(tmp_path / 'packages')}\n")
    install = ("-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", built.wheel)
    done(sys.executable, *install, cwd=tmp_path)

    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "photos").mkdir(parents=True)
    shutil.copy(SAMPLES / "chelsea.png", elsewhere / "photos")
    nowhere = {"https_proxy": "http://127.0.0.1:9", "TORCH_HOME": str(tmp_path / "torch_home")}
    fcn = home / "bin/fcn"
    assert done(fcn, "--version", cwd=elsewhere) == f"fcn {__version__}\n"
    assert "segment" in done(fcn, "--help", cwd=elsewhere)
    records = done(
        fcn, "segment", "photos", "--backbone", "efficientnet_lite0", "--resize", "64", "--json",
        cwd=elsewhere, **nowhere,
    )  # fmt: skip
    assert json.loads(records)["status"] == "ok"
    code = (
        "import json, fcn_cli, fcn_cli.added.deeper\n"
        "labels = fcn_cli.Segmenter('efficientnet_lite0', resize=64)('photos/chelsea.png').labels\n"
        "print(json.dumps([fcn_cli.__file__, labels.tolist()]))"
    )
    where, labels = json.loads(done(python, "-c", code, cwd=elsewhere, **nowhere))
    assert Path(where).is_relative_to(site)
    with Image.open(elsewhere / "fcn_output/masks/chelsea.png") as mask:
        assert np.array_equal(np.array(mask), np.array(labels))


@pytest.mark.slow
@pytest.mark.long
def test_the_sdist_holds_what_its_tests_need(built: Built, tmp_path: Path) -> None:
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.glob("fcn_cli-*")
    source = {name for name in files_below(built.tree) if name.split("/")[0] in SOURCE}
    assert not source - files_below(unpacked)
    code = "import fcn_cli; print(fcn_cli.__file__)"
    where = done(sys.executable, "-c", code, cwd=unpacked, PYTHONPATH=str(unpacked))
    assert Path(where.strip()).is_relative_to(unpacked)
    said = done(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
        "tests/cli/test_start.py", "tests/outputs/test_outputs.py",
        cwd=unpacked, PYTHONPATH=str(unpacked),
    )  # fmt: skip
    assert " passed" in said
    if shutil.which("make"):
        assert "crash-test" in done("make", "help", cwd=unpacked)


@pytest.mark.slow
@pytest.mark.long
def test_a_release_is_made_and_its_wheel_tried(built: Built, tmp_path: Path) -> None:
    """What .github/workflows/release.yml does with a tag, but for what only a download can bring."""
    packages = link_packages(tmp_path / "packages")
    done(
        "bash", ".ci/release", f"v{__version__}", "--no-isolation",
        cwd=built.tree, PYTHON=sys.executable, PYTHONPATH=str(packages), PIP_NO_INDEX="1",
    )  # fmt: skip
    assert (built.tree / "build/tried/out/masks/chelsea.png").exists()
    assert {path.name for path in (built.tree / "dist").iterdir()} == {built.sdist.name, built.wheel.name}
    notes = (built.tree / "build/notes.md").read_text()
    assert notes.strip() in (ROOT / "CHANGELOG.md").read_text()
    assert "\n## " not in notes


@pytest.mark.parametrize(
    ("tag", "changes", "said"),
    [
        ("v9.9.9", "## 9.9.9\n\nAll.\n", f"the tag is v9.9.9, and the version {__version__}"),
        (f"v{__version__}", "## 9.9.9\n\nAll.\n", f"says nothing of version {__version__}"),
    ],
)
def test_a_release_needs_its_own_tag_and_a_word_on_what_changed(
    tag: str, changes: str, said: str, tmp_path: Path
) -> None:
    need("bash")
    (tmp_path / "fcn_cli").mkdir()
    shutil.copy(ROOT / "fcn_cli/__init__.py", tmp_path / "fcn_cli")
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    (tmp_path / "CHANGELOG.md").write_text(changes)
    line = ["bash", ".ci/release", tag]
    refused = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert said in refused.stderr
    assert not (tmp_path / "dist").exists()


def test_the_hosted_release_does_what_is_tested_here() -> None:
    workflow = (ROOT / ".github/workflows/release.yml").read_text()
    assert '- run: .ci/release "$GITHUB_REF_NAME"\n' in workflow
    # Nothing goes to an index before somebody owns the name there.
    assert "if: vars.PUBLISH_TO_INDEX == 'true'\n" in workflow


def test_messages_name_extras_that_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    sources = {path: path.read_text() for path in (ROOT / "fcn_cli").rglob("*.py")}
    named = {extra for text in sources.values() for extra in re.findall(r"fcn-cli\[(\w+)\]", text)}
    assert "coco" in named
    assert named <= set(extras)
    assert not [
        path for path, text in sources.items() if re.search(r"\bfcn\[|pip install (?!'fcn-cli\[)", text)
    ]


def test_coco_polygons_without_their_package_name_the_extra(
    fcn: Fcn, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    content = {
        "images": [{"id": 1, "file_name": "chelsea.png", "width": 451, "height": 300}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[9, 9, 90, 9, 90, 90]]},
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    done = fcn("evaluate", images, "instances.json", "--backbone", "efficientnet_lite0", code=2)
    assert "pip install 'fcn-cli[coco]'" in done.stderr


def test_the_oldest_releases_that_ci_tries_are_those_that_are_allowed() -> None:
    allowed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    tried = [line for line in (ROOT / ".ci/oldest.txt").read_text().splitlines() if not line.startswith("#")]
    assert tried == [requirement.replace(">=", "==") for requirement in allowed]


def test_the_citation_names_this_version() -> None:
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()

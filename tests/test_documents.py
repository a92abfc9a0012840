"""The documents name modules, tests and files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fcn_cli"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def test_the_architecture_names_every_package_and_only_modules_that_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    named = re.findall(r"`([a-z]+)/`", text)
    assert packages <= set(named)
    modules = [
        (package, module) for package, module in re.findall(r"`(\w+)/(\w+)`", text) if package in packages
    ]
    assert len(modules) > 30
    missing = [
        f"{package}/{module}"
        for package, module in modules
        if not (PACKAGE / package / f"{module}.py").is_file() and not (PACKAGE / package / module).is_dir()
    ]
    assert missing == []


def test_the_kernels_page_names_modules_that_exist() -> None:
    table = (
        (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8").split("| module in `fcn_cli/cpu/` |")[1]
    )
    first_cells = re.findall(r"^\| (`[^|]+`) \|", table.split("\n\n")[0], re.MULTILINE)
    names = [name for cell in first_cells for name in re.findall(r"`([\w/]+)`", cell)]
    assert len(names) > 8
    directory = PACKAGE / "cpu"
    missing = [
        name
        for name in names
        if not (directory / f"{name}.py").is_file() and not (directory / "kernels" / f"{name}.py").is_file()
    ]
    assert missing == []


def test_the_promises_on_security_name_tests_that_exist() -> None:
    cited = re.findall(r"`(test_\w+)`", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert len(cited) > 20
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in cited if f"def {name}(" not in sources] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def test_what_has_not_been_tried_is_said_up_front() -> None:
    sentence = "GPU support is experimental and has never run on a device"
    for page in ("README.md", "docs/gpu.md"):
        start = (ROOT / page).read_text(encoding="utf-8").split("\n## ")[0]
        assert sentence in start, page
    assert "Windows is not supported" in (ROOT / "README.md").read_text(encoding="utf-8")
    # Nothing tries it, with a result that nobody looks at.
    for name in ("Makefile", "pyproject.toml", ".github/workflows/tests.yml"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "windows" not in text.casefold(), name
        assert "continue-on-error" not in text, name
        assert "GPU :: NVIDIA" not in text, name

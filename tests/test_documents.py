"""The documents name modules, tests, files and commands that exist."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from fcn_cli.cli.app import app
from fcn_cli.cli.command_line import UsageError, usage_message
from fcn_cli.common.class_names import VOC_CLASSES
from fcn_cli.common.errors import FcnError

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fcn_cli"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
# The changelog tells of commands that are no more.
PAGES_OF_TODAY = [page for page in PAGES if page.name != "CHANGELOG.md"]


def test_the_architecture_names_every_package_and_only_modules_that_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    named = re.findall(r"`([a-z]+)/`", text)
    assert packages <= set(named)
    modules = [
        (package, module) for package, module in re.findall(r"`(\w+)/(\w+)`", text) if package in packages
    ]
    assert len(modules) > 10
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


def test_the_picture_of_the_classes_shows_those_of_today() -> None:
    drawn = runpy.run_path(str(ROOT / "docs/classes.py"))["picture"]()
    assert (ROOT / "docs/classes.svg").read_text(encoding="utf-8") == drawn, "run docs/classes.py"
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert "".join(f" {index} {name}," for index, name in enumerate(VOC_CLASSES[1:], 1)) in readme


class Command(NamedTuple):
    """A command that a page shows; `variables` stand before it, and one in a sentence is a mention."""

    variables: dict[str, str]
    arguments: list[str]
    is_mention: bool


# What a shell, a scheduler or GNU parallel puts there.
PLACEHOLDERS = re.compile(r"\$\(\(.*?\)\)|\$\{?\w+\}?|\{\}")
ENDING_OPTIONS = {"-h", "--help", "--version", "--install-completion", "--show-completion"}
OTHER_VARIABLES = {"FCN_WEIGHTS_DIR", "FCN_WEIGHTS_MIRROR"}


def commands_of(text: str) -> Iterator[Command]:
    """Yield every ``fcn …`` in the blocks of a page and in code within its sentences."""
    for block in re.findall(r"(?:^ {4}.*\n|^ *\n)+", text, re.MULTILINE):
        # A line goes on after a backslash, and in a folded text of YAML.
        for line in re.sub(r"\\?\n\s*(?=--)|\\\n", " ", block).splitlines():
            yield from commands_in(line, is_mention=False)
    sentences = re.sub(r"^ {4}.*$", "", text, flags=re.MULTILINE)
    for code in re.findall(r"`([^`]+)`", sentences):
        yield from commands_in(" ".join(code.split()), is_mention=True)


def commands_in(line: str, *, is_mention: bool) -> Iterator[Command]:
    if "fcn " not in line:
        return
    lexer = shlex.shlex(PLACEHOLDERS.sub("1", line).replace("…", ""), posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    try:
        tokens = list(lexer)
    except ValueError:
        # A sentence or a program with an apostrophe.
        return
    for place, token in enumerate(tokens):
        if "fcn " in token:
            # Within quotation marks, for another command.
            yield from commands_in(token, is_mention=is_mention)
        elif token == "fcn" or token.endswith("/fcn"):
            rest = tokens[place + 1 :]
            end = next((n for n, word in enumerate(rest) if set(word) <= set("|&;<>")), len(rest))
            variables = dict(word.split("=", 1) for word in tokens[:place] if re.match(r"FCN_\w+=", word))
            if rest[:end]:
                yield Command(variables, rest[:end], is_mention)


def problem_of(command: Command, patch: pytest.MonkeyPatch) -> str | None:
    """Return what the command line says of a command, which is parsed with all values and not run."""
    parsed: Any = typer.main.get_command(app)
    context: Any = typer.Context(parsed, info_name="fcn")
    words = list(command.arguments)
    while words and hasattr(parsed, "get_command") and not words[0].startswith("-") and words[0] != "COMMAND":
        name = words.pop(0)
        parsed = parsed.get_command(context, name)
        if parsed is None:
            return f"no command {name}"
        context = typer.Context(parsed, info_name=name, parent=context)
    known = {name: param for param in parsed.get_params(context) for name in param.opts}
    variables = OTHER_VARIABLES | {getattr(param, "envvar", None) for param in known.values()}
    if unknown := command.variables.keys() - variables:
        return f"no variable {unknown}"
    if ENDING_OPTIONS & set(words) or not words:
        return next((f"no option {word}" for word in words if word[0] == "-" and word not in known), None)
    if command.is_mention and words[-1] in known and not getattr(known[words[-1]], "is_flag", True):
        words.pop()
    with patch.context() as environment:
        for name, value in command.variables.items():
            environment.setenv(name, value)
        try:
            parsed.make_context(context.info_name, words, parent=context.parent)
        except UsageError as error:
            is_missing = type(error).__name__ == "MissingParameter"
            return None if is_missing and command.is_mention else usage_message(error)
        except FcnError as error:
            return str(error)
    return None


@pytest.mark.parametrize("page", PAGES_OF_TODAY, ids=lambda page: page.name)
def test_every_command_that_a_page_shows_is_one(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = list(commands_of(page.read_text(encoding="utf-8")))
    assert len(found) > {"README.md": 20, "guide.md": 70, "options.md": 1}.get(page.name, -1)
    problems = {" ".join(command.arguments): problem_of(command, monkeypatch) for command in found}
    assert {line: problem for line, problem in problems.items() if problem} == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("    ls | fcn segment photos/ --outptu x\n", "no such option: --outptu"),
        ("    fcn segment photos/ \\\n      --shard 0/4 && true\n", "--shard takes I/N"),
        ("    sbatch --wrap 'fcn merg out'\n", "no command merg"),
        ("    FCN_BAKBONE=x fcn segment photos/\n", "no variable {'FCN_BAKBONE'}"),
        ("    FCN_BACKBONE=x fcn segment photos/\n", "FCN_BACKBONE takes"),
        ("    fcn evaluate photos/\n", "TRUTH is missing"),
        ("Give `fcn segment\n--kernels x`.\n", "--kernels takes"),
        ("Give `fcn segment --hlep`, `fcn bench --help --to`.\n", "no such option: --hlep"),
    ],
)
def test_a_command_that_is_none_is_noticed(text: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test before could not fail."""
    problems = [problem_of(command, monkeypatch) or "" for command in commands_of(text)]
    assert said in problems[0]


def test_what_is_only_mentioned_may_lack_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "See `fcn segment --ray`, `fcn evaluate … --report DIR`, `fcn COMMAND --help` and `fcn weights`.\n"
    found = list(commands_of(text))
    assert len(found) == 4
    assert [problem_of(command, monkeypatch) for command in found] == [None] * 4

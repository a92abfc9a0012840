"""Shell completion, by the protocol that the shells speak, and in a real bash."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fcn_cli.models.registry import BACKBONES

from ..conftest import Fcn, Finished, command, need, run_process
from ..terminal import read_until


def speech(words: str, shell: str = "bash") -> dict[str, str]:
    """Return the variables by which a shell asks what completes the last of these words."""
    spoken = {
        "bash": {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": words},
        "fish": {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }
    return {**spoken[shell], "_FCN_COMPLETE": f"complete_{shell}"}


@pytest.fixture
def completed(fcn: Fcn, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Return what completes the last of some words."""

    def call(words: str, shell: str = "bash") -> list[str]:
        with monkeypatch.context() as patch:
            for name, value in speech(words, shell).items():
                patch.setenv(name, value)
            done = fcn()
        assert done.stderr == ""
        return done.stdout.split("\n")[:-1]

    return call


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("fcn seg", ["segment"]),
        ("fcn weights ", ["list", "fetch", "check", "verify"]),
        ("fcn segment --ba", ["--backbone", "--batch-size", "--background"]),
        ("fcn segment photos --backbone ", list(BACKBONES)),
        ("fcn bench --backbone eff", ["efficientnet_lite0"]),
        ("fcn weights fetch res", ["resnet50", "resnet101"]),
        ("fcn segment --precision ", ["auto", "fp32", "bf16", "fp16"]),
        ("fcn evaluate a b --protocol t", ["torchvision"]),
        ("fcn segment --device cu", ["cuda"]),
        ("fcn segment --write masks,co", ["masks,color", "masks,confidence"]),
        ("fcn segment --write cut", ["cutout"]),
        ("fcn segment --write color,ma", ["color,masks"]),
        ("fcn segment --palette v", ["voc"]),
        ("fcn segment --palette b", ["bright"]),
        # Nothing of ours: the shell goes on with files and directories.
        ("fcn segment ", [""]),
        ("fcn segment --palette ./", [""]),
        ("fcn segment --output ", [""]),
        ("fcn compare a ", [""]),
    ],
)
def test_commands_options_and_values_are_completed(
    completed: Callable[..., list[str]], words: str, expected: list[str]
) -> None:
    assert completed(words) == expected


def test_zsh_and_fish_get_their_own_form(completed: Callable[..., list[str]]) -> None:
    zsh = completed("fcn segment --backbone res", "zsh")
    assert zsh == ['_arguments \'*: :(("resnet50"', '"resnet101"))\'']
    assert completed("fcn segment ", "zsh") == ["_files"]
    assert completed("fcn segment --backbone res", "fish") == ["resnet50", "resnet101"]
    helped = completed("fcn segment --resi", "fish")
    assert helped[0].startswith("--resize\tShort side")


def test_completing_loads_no_torch_and_minds_no_bad_setting(tmp_path: Path) -> None:
    report = tmp_path / "modules"
    at_exit = f"open({str(report)!r}, 'w').write(' '.join(sys.modules))"
    (tmp_path / "sitecustomize.py").write_text(f"import atexit, sys\natexit.register(lambda: {at_exit})\n")
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([str(tmp_path), root])
    bad = {"FCN_OFFLINE": "maybe", "FCN_RESIZE": "x"}
    asked = speech("fcn segment --backbone res")
    done = run_process(env={**os.environ, **bad, **asked, "PYTHONPATH": path})
    assert done.stdout == "resnet50\nresnet101\n"
    loaded = set(report.read_text().split())
    assert "fcn_cli.cli.options" in loaded
    assert not {"torch", "torchvision"} & loaded


SCRIPTS = {"bash": "complete -o default -F", "zsh": "#compdef fcn", "fish": "complete --command fcn"}


def in_shell(name: str, folder: Path, option: str, **environment: str) -> Finished:
    """Run the command below a process that has a shell's name; most machines have bash only."""
    need("bash")
    bash = shutil.which("bash")
    assert bash is not None
    shell = folder / name
    shutil.copy(bash, shell)
    line = [str(shell), "-c", '"$@"; exit $?', name, *command(option)]
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment}
    done = subprocess.run(line, capture_output=True, text=True, env=variables, timeout=60, check=True)
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.mark.long
@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_script_is_shown_and_installed_for_the_shell_one_is_in(shell: str, tmp_path: Path) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc, where Typer finds the shell")
    shown = in_shell(shell, tmp_path, "--show-completion").stdout
    assert SCRIPTS[shell] in shown
    assert f"_FCN_COMPLETE=complete_{shell}" in shown
    done = in_shell(shell, tmp_path, "--install-completion", HOME=str(tmp_path))
    assert f"{shell} completion installed" in done.stdout
    scripts = [path for path in tmp_path.rglob("*fcn*") if path.is_file()]
    assert [path.read_text().strip() for path in scripts] == [shown.strip()]
    # For another shell than the one around it, the script comes from the protocol.
    assert run_process(env={**os.environ, "_FCN_COMPLETE": f"source_{shell}"}).stdout.strip() == shown.strip()


@pytest.mark.long
def test_a_real_bash_completes_values_and_paths(tmp_path: Path) -> None:
    need("bash")
    (tmp_path / "bin").mkdir()
    fcn = tmp_path / "bin/fcn"
    fcn.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fcn_cli "$@"\n')
    fcn.chmod(0o755)
    (tmp_path / "holiday_photos").mkdir()
    (tmp_path / "rc").write_text("PS1='ready> '; bind 'set enable-bracketed-paste off'\n")
    script = run_process(env={**os.environ, "_FCN_COMPLETE": "source_bash"}).stdout
    with (tmp_path / "rc").open("a") as rc:
        rc.write(script)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.environ["PATH"] = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
        os.execlp("bash", "bash", "--rcfile", "rc", "-i")
    try:
        read_until(terminal, "ready> ")
        os.write(terminal, b"fcn segment hol\t")
        read_until(terminal, "holiday_photos/")
        os.write(terminal, b" --backbone eff\t")
        read_until(terminal, "efficientnet_lite0 ")
        os.write(terminal, b"--output hol\t")
        read_until(terminal, "holiday_photos/")
    finally:
        os.write(terminal, b"\x15exit\n")
        os.waitpid(pid, 0)
        os.close(terminal)


def test_help_shows_the_options_for_completion(fcn: Fcn) -> None:
    text = fcn("--help").stdout
    assert "--install-completion" in text
    assert "--show-completion" in text
    assert text.index("Commands:") < text.index("Options:")
    assert len(text.splitlines()) < 40

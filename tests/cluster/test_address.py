"""``--ray ADDRESS``: what is no cluster is refused at once, in one line, and what excludes Ray too."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..conftest import SMALL, Fcn, command, python_with, run_line, tree


@pytest.fixture
def listening() -> Iterator[tuple[str, list[bytes]]]:
    """A server that sends to each caller the next of these answers; without one it says nothing."""
    answers: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            kept = []
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                kept.append(connection)
                if answers:
                    connection.sendall(answers.pop(0))

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}", answers


def test_a_dead_address_fails_at_once(fcn: Fcn, images: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        began = time.monotonic()
        done = fcn("segment", images, *SMALL, "--ray", address, code=2)
    assert f"--ray {address}: no answer (Connection refused)" in done.stderr
    assert time.monotonic() - began < 10
    assert not Path("fcn_output").exists()


def test_a_server_that_is_not_ray_is_refused(
    fcn: Fcn, images: Path, listening: tuple[str, list[bytes]]
) -> None:
    address, answers = listening
    answers.append(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    done = fcn("segment", images, *SMALL, "--ray", address, code=2)
    assert f"--ray {address}: no answer (not a Ray server)" in done.stderr


@pytest.mark.slow
def test_a_server_that_says_nothing_is_refused_within_ten_seconds(
    fcn: Fcn, images: Path, listening: tuple[str, list[bytes]]
) -> None:
    began = time.monotonic()
    done = fcn("segment", images, *SMALL, "--ray", listening[0], code=2)
    assert "no answer (timed out)" in done.stderr
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("ray://head:10001", "Ray Client (ray://) is not supported"),
        ("head", "--ray takes local, or HOST:PORT of a cluster's head node, not 'head'"),
        ("head:0", "--ray takes local, or HOST:PORT"),
        ("head:65536", "--ray takes local, or HOST:PORT"),
        ("http://head:6379", "--ray takes local, or HOST:PORT"),
        ("", "--ray takes local, or HOST:PORT"),
    ],
)
def test_what_is_no_address_is_a_usage_error(fcn: Fcn, images: Path, given: str, message: str) -> None:
    assert message in fcn("segment", images, *SMALL, "--ray", given, code=2).stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--watch",), "--watch and --ray exclude each other"),
        (("--shard", "1/2"), "--shard and --ray exclude each other"),
        (("--device", "cuda:0"), "Ray gives each actor a GPU of its own"),
    ],
)
def test_what_excludes_ray_is_refused(fcn: Fcn, images: Path, options: tuple[str, ...], message: str) -> None:
    done = fcn("segment", images, *SMALL, "--ray", "local", *options, code=2)
    assert message in done.stderr
    assert not Path("fcn_output").exists()


def test_a_dry_run_plans_without_ray(fcn: Fcn, images: Path, tmp_path: Path) -> None:
    done = fcn("segment", images, *SMALL, "--ray", "nowhere.invalid:6379", "--dry-run")
    assert done.stdout.count("segment\t") == 4
    assert not Path("fcn_output").exists()


def test_without_ray_its_extra_is_named(images: Path, tmp_path: Path) -> None:
    without = "import sys; sys.modules['ray'] = None"
    done = run_line(
        command("segment", images, *SMALL, "--ray", "local"),
        code=2,
        cwd=tmp_path,
        env=python_with(without, tmp_path),
    )
    assert "pip install 'fcn-cli[ray]'" in done.stderr
    assert "masks" not in " ".join(tree(tmp_path))


@pytest.mark.parametrize("arguments", [("--help",), ("segment", "--help")])
def test_help_and_a_plain_run_do_not_import_ray(arguments: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom fcn_cli.__main__ import run\n"
        f"assert run({list(arguments)!r}) == 0\nassert 'ray' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--ray" in done.stdout or arguments == ("--help",)

"""A checkpoint by URL: downloaded once, and again when it changes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fcn_cli.common.errors import WeightsError
from fcn_cli.models.request import ModelRequest
from fcn_cli.models.weights import WeightsFile
from tests.conftest import SMALL, Fcn
from tests.web_server import WebServer, web_server

pytest.importorskip("aiohttp")


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with web_server() as server:
        yield server


def resolve(url: str, *, offline: bool = False) -> WeightsFile:
    file = ModelRequest("mobilenet_v2", url, offline=offline).resolve().checkpoint
    assert file is not None
    return file


def cached(tmp_path: Path) -> list[str]:
    return [name for name in os.listdir(tmp_path / "torch/hub/checkpoints") if not name.startswith(".")]


@pytest.mark.parametrize("headers", [None, {"Last-Modified": "Tue, 24 Nov 2026 03:00:00 GMT"}])
def test_it_is_downloaded_once(web: WebServer, headers: dict[str, str] | None, tmp_path: Path) -> None:
    web.headers = headers
    web.files["/my net.pth"] = b"weights"
    for signature in ("a", "b"):
        file = resolve(f"{web.url}/my%20net.pth?sig={signature}")
        assert file.path.read_bytes() == b"weights"
        assert file.sha256 == hashlib.sha256(b"weights").hexdigest()
        assert file.path.suffix == ".pth"
    assert web.count("GET") == 1
    assert cached(tmp_path) == [file.path.name]


def test_it_is_downloaded_again_when_it_changes(web: WebServer, tmp_path: Path) -> None:
    contents = (b"old weights", b"new weights", b"newer weights")
    for content in contents:
        web.files["/net.pth"] = content
        assert resolve(f"{web.url}/net.pth").sha256 == hashlib.sha256(content).hexdigest()
    assert len(cached(tmp_path)) == 1
    # Where the server does not tell versions apart, nobody knows.
    web.headers = {}
    before = web.count("GET")
    for content in contents[:2]:
        web.files["/net.pth"] = content
        assert resolve(f"{web.url}/net.pth").path.read_bytes() == content
    assert web.count("GET") == before + 2


def test_what_cannot_be_had_is_said_in_one_line(web: WebServer, tmp_path: Path) -> None:
    web.files["/net.pth"] = b"weights"
    web.status["/denied.pth"] = 403
    for name, offline, text in (
        ("net.pth", True, "--offline forbids downloading weights"),
        ("none.pth", False, "there is no such object"),
        ("denied.pth", False, "access denied"),
    ):
        with pytest.raises(WeightsError, match=text) as refused:
            resolve(f"{web.url}/{name}?sig=5ecret", offline=offline)
        assert "5ecret" not in str(refused.value)
    assert not (tmp_path / "torch").exists()
    (tmp_path / "torch").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"checkpoints: cannot be written"):
        resolve(f"{web.url}/net.pth")


@pytest.mark.long
def test_the_command_takes_a_url_and_knows_what_it_used(fcn: Fcn, web: WebServer, photos: Path) -> None:
    web.files["/net.pth"] = b"not a checkpoint"
    done = fcn("segment", photos, *SMALL, "--weights", f"{web.url}/net.pth", "-o", "out", code=2)
    assert "fcn-" in done.stderr
    done = fcn("segment", photos, *SMALL, "--weights", f"{web.url}/net.pth", "--offline", code=2)
    assert "--offline forbids" in done.stderr

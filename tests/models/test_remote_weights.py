"""A checkpoint by URL: downloaded once, and again when it changes."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from fcn_cli.common.errors import WeightsError
from fcn_cli.models import download
from fcn_cli.models.request import ModelRequest
from fcn_cli.models.weights import WeightsFile
from tests.conftest import SMALL, Fcn
from tests.s3_server import S3Server
from tests.web_server import WebServer, web_server


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with web_server() as server:
        yield server


def resolve(url: str, *, offline: bool = False) -> WeightsFile:
    file = ModelRequest("efficientnet_lite0", url, offline=offline).resolve().checkpoint
    assert file is not None
    return file


def cached(tmp_path: Path) -> list[str]:
    return [name for name in os.listdir(tmp_path / "torch/hub/checkpoints") if not name.startswith(".")]


@pytest.mark.parametrize("headers", [None, {"Last-Modified": "Tue, 24 Nov 2026 03:00:00 GMT"}])
def test_it_is_downloaded_once(web: WebServer, headers: dict[str, str] | None, tmp_path: Path) -> None:
    web.headers = headers
    web.files["/my net.pth"] = b"weights"
    made = set()
    for rest in ("?sig=a", "?sig=b", "?sig=c#x"):
        file = resolve(f"{web.url}/my%20net.pth{rest}")
        assert file.path.read_bytes() == b"weights"
        assert file.sha256 == hashlib.sha256(b"weights").hexdigest()
        assert file.path.suffix == ".pth"
        made.add((file.path, file.path.stat().st_ino, file.path.stat().st_mtime_ns))
    assert len(made) == 1
    assert cached(tmp_path) == [file.path.name]
    # As people write it.
    assert resolve(f"{web.url}/my net.pth").path.read_bytes() == b"weights"


def test_it_is_downloaded_again_when_it_changes(web: WebServer, tmp_path: Path) -> None:
    contents = (b"old weights", b"new weights", b"newer weights")
    for content in contents:
        web.files["/net.pth"] = content
        assert resolve(f"{web.url}/net.pth").sha256 == hashlib.sha256(content).hexdigest()
    assert len(cached(tmp_path)) == 1
    # Where the server does not tell versions apart, nobody knows.
    web.headers = {}
    for content in contents[:2]:
        web.files["/net.pth"] = content
        assert resolve(f"{web.url}/net.pth").path.read_bytes() == content


def test_a_bucket_is_read_in_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(download, "_PART", 1000)
    content = random.Random(0).randbytes(2500)
    fsspec.filesystem("memory").pipe_file("/weights/net.pth", content)
    files = {resolve("memory://weights/net.pth").path for _ in range(2)}
    assert [path.read_bytes() for path in files] == [content]
    monkeypatch.setattr(download, "MAX_BYTES", 2499)
    fsspec.filesystem("memory").pipe_file("/weights/net.pth", content[::-1])
    with pytest.raises(WeightsError, match=r"net\.pth: cannot be downloaded: it is larger than"):
        resolve("memory://weights/net.pth")
    with pytest.raises(WeightsError, match="there is no such object"):
        resolve("memory://weights/none.pth")
    assert cached(tmp_path) == [path.name for path in files]


def test_what_cannot_be_had_is_said_in_one_line(
    web: WebServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    web.files["/net.pth"] = b"weights"
    web.status["/denied.pth"] = 403
    for name, offline, text in (
        ("net.pth", True, "--offline forbids downloading weights"),
        ("none.pth", False, "the server answered 404"),
        ("denied.pth", False, "the server answered 403"),
    ):
        with pytest.raises(WeightsError, match=text) as refused:
            resolve(f"{web.url}/{name}?sig=5ecret", offline=offline)
        assert "5ecret" not in str(refused.value)
    assert not cached(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"checkpoints: cannot be written"):
        resolve(f"{web.url}/net.pth")


@pytest.mark.long
def test_the_command_takes_a_url_and_knows_what_it_used(fcn: Fcn, web: WebServer, images: Path) -> None:
    web.files["/net.pth"] = b"not a checkpoint"
    done = fcn("segment", images, *SMALL, "--weights", f"{web.url}/net.pth", "-o", "out", code=2)
    assert "fcn-" in done.stderr
    done = fcn("segment", images, *SMALL, "--weights", f"{web.url}/net.pth", "--offline", code=2)
    assert "--offline forbids" in done.stderr


@pytest.mark.slow
@pytest.mark.long
def test_a_checkpoint_in_a_bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(download, "_PART", 1000)
    for content in (random.Random(0).randbytes(2500), random.Random(1).randbytes(3000)):
        s3.put("photos", {"my net.pth": content})
        files = {resolve("s3://photos/my net.pth").path for _ in range(2)}
        assert [path.read_bytes() for path in files] == [content]
    assert cached(tmp_path) == [path.name for path in files]

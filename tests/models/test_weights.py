"""Weights: found, fetched over HTTP, verified; checkpoints of all kinds taken or refused."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import os
import pickle
import resource
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
import torch
from PIL import Image

from fcn_cli import Segmenter, __version__
from fcn_cli.common.class_names import VOC_CLASSES
from fcn_cli.common.errors import WeightsError
from fcn_cli.models import download, weights
from fcn_cli.models.download import Timeouts
from fcn_cli.models.registry import BACKBONES, BundledWeights, OfficialWeights

from ..conftest import SAMPLES, SMALL, Fcn, MakeImages, command, tree, wait_until

assert isinstance(BACKBONES["efficientnet_lite0"].weights, BundledWeights)
BUNDLED = BACKBONES["efficientnet_lite0"].weights.path
CONTENT = BUNDLED.read_bytes()
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class QuietServer(ThreadingHTTPServer):
    """Prints nothing where a client has closed its connection."""

    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        pass


class Server:
    """A web server on this machine that answers as a test says."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.agents: list[str | None] = []
        self.answer: Callable[[BaseHTTPRequestHandler], None] = lambda handler: handler.send_error(404)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(self.path)
                outer.agents.append(self.headers["User-Agent"])
                outer.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def serve(
        self, content: bytes, claim: int | None = None, then: Callable[[], object] | None = None
    ) -> None:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", str(claim or len(content)))
            handler.end_headers()
            handler.wfile.write(content)
            if then:
                handler.wfile.flush()
                then()

        self.answer = answer


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.server.shutdown()
    running.server.server_close()


@pytest.fixture
def official(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> OfficialWeights:
    """Make efficientnet_lite0 a backbone whose weights are downloaded from the server."""
    injected = OfficialWeights(f"{server.url}/models/net-{DIGEST[:8]}.pth", DIGEST[:8])
    backbone = BACKBONES["efficientnet_lite0"]
    monkeypatch.setitem(BACKBONES, "efficientnet_lite0", dataclasses.replace(backbone, weights=injected))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return injected


def cache(tmp_path: Path) -> list[str]:
    folder = tmp_path / "torch/hub/checkpoints"
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock")) if folder.exists() else []


@pytest.mark.long
def test_a_download_is_cached_and_gives_the_same_masks(
    fcn: Fcn, make_images: MakeImages, server: Server, official: OfficialWeights, tmp_path: Path
) -> None:
    make_images(["a.png"])
    server.serve(CONTENT)
    first = fcn("segment", "made", *SMALL, "-o", "one")
    assert first.stdout == ""
    fcn("segment", "made", *SMALL, "-o", "two", "--offline")
    assert server.requests == [f"/models/{official.file_name}"]
    assert server.agents == [f"fcn-cli/{__version__}"]
    assert cache(tmp_path) == [official.file_name]
    path = tmp_path / "torch/hub/checkpoints" / official.file_name
    assert path.read_bytes() == CONTENT
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask
    assert tree(tmp_path / "one/masks") == tree(tmp_path / "two/masks")


@pytest.mark.long
@pytest.mark.parametrize("kind", ["wrong hash", "cut off", "404", "refused"])
def test_a_download_that_goes_wrong_ends_in_one_message_and_no_file(
    kind: str, fcn: Fcn, make_images: MakeImages, server: Server, official: OfficialWeights, tmp_path: Path
) -> None:
    make_images(["a.png"])
    expected = "404"
    if kind == "wrong hash":
        server.serve(b"something else")
        expected = "the file received is not the right one"
    elif kind == "cut off":
        server.serve(CONTENT[:100_000], claim=len(CONTENT))
        expected = f"ended after 100000 of {len(CONTENT)} bytes"
    elif kind == "refused":
        server.server.shutdown()
        server.server.server_close()
        expected = "Connection refused"
    started = time.monotonic()
    done = fcn("segment", "made", *SMALL, "-o", "out", code=2)
    assert time.monotonic() - started < 15
    assert expected in done.stderr
    assert len([line for line in done.stderr.splitlines() if "downloading" not in line]) == 1
    for way_out in (
        official.url,
        str(tmp_path / "torch/hub/checkpoints"),
        "fcn weights fetch",
        "efficientnet_lite0",
    ):
        assert way_out in done.stderr
    assert cache(tmp_path) == []
    assert not (tmp_path / "out").exists()


Fetch = Callable[[str, Timeouts], Path]


def fetch_official(url: str, timeouts: Timeouts) -> Path:
    return download.fetch(OfficialWeights(url, DIGEST[:8]), timeouts=timeouts)


def fetch_by_url(url: str, timeouts: Timeouts) -> Path:
    return download.obtain_url(url, timeouts=timeouts)


@pytest.fixture(params=[fetch_official, fetch_by_url])
def fetch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fetch:
    """Either way to download."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    way: Fetch = request.param
    return way


def slowly(content: bytes, stop: threading.Event) -> Callable[[BaseHTTPRequestHandler], None]:
    """Answer with a byte now and then, until the test ends."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        with contextlib.suppress(OSError):
            for byte in itertools.cycle(content):
                handler.wfile.write(bytes([byte]))
                if stop.wait(0.05):
                    break

    return answer


def test_a_server_that_is_too_slow(fetch: Fetch, server: Server, tmp_path: Path) -> None:
    """It stops half way, sends byte by byte, or never ends a header: each step has its time, as all have."""
    stop = threading.Event()
    server.serve(CONTENT[:100_000], claim=len(CONTENT), then=lambda: stop.wait(20))
    with pytest.raises(WeightsError, match="did not answer in time"):
        fetch(f"{server.url}/net.pth", Timeouts(read=0.3))
    server.answer = slowly(b"HTTP/1.0 200 OK\r\nX: ", stop)
    with pytest.raises(WeightsError, match="did not answer in time"):
        fetch(f"{server.url}/net.pth", Timeouts(connect=0.3))
    server.serve(b"", claim=len(CONTENT))
    begin = server.answer

    def answer(handler: BaseHTTPRequestHandler) -> None:
        begin(handler)
        slowly(b"x", stop)(handler)

    server.answer = answer
    with pytest.raises(WeightsError, match=r"was not complete after 0\.01 minutes"):
        fetch(f"{server.url}/net.pth", Timeouts(total=0.6))
    stop.set()
    assert cache(tmp_path) == []


def test_a_server_that_never_answers(fetch: Fetch, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        started = time.monotonic()
        with pytest.raises(WeightsError, match="did not answer in time"):
            fetch(f"http://127.0.0.1:{mute.getsockname()[1]}/x.pth", Timeouts(connect=0.3))
        assert time.monotonic() - started < 3
    assert Timeouts().connect <= 10


def test_a_file_that_is_too_large(
    fetch: Fetch, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert download.MAX_BYTES == 1 << 30
    monkeypatch.setattr(download, "MAX_BYTES", 8 << 20)
    server.serve(b"x", claim=9 << 20)
    with pytest.raises(WeightsError, match="is larger than 8 MiB, the most that is downloaded"):
        fetch(f"{server.url}/net.pth", Timeouts())

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(bytes(1 << 16))

    server.answer = endless
    with pytest.raises(WeightsError, match="is larger than 8 MiB"):
        fetch(f"{server.url}/net.pth", Timeouts())
    assert cache(tmp_path) == []


def test_a_download_goes_to_the_disk_as_it_comes(fetch: Fetch, server: Server, tmp_path: Path) -> None:
    release = threading.Event()
    server.serve(CONTENT[:3_000_000], claim=len(CONTENT), then=lambda: release.wait(20))
    serve = server.answer

    def answer(handler: BaseHTTPRequestHandler) -> None:
        serve(handler)
        handler.wfile.write(CONTENT[3_000_000:])

    server.answer = answer
    with ThreadPoolExecutor() as pool:
        fetched = pool.submit(fetch, f"{server.url}/net.pth", Timeouts())
        wait_until(lambda: [path.stat().st_size for path in tmp_path.rglob("*.part")] > [1_000_000])
        release.set()
        assert fetched.result().read_bytes() == CONTENT
    assert cache(tmp_path) == [fetched.result().name]


def test_what_a_killed_download_left_is_swept_by_the_next(
    server: Server, official: OfficialWeights, tmp_path: Path
) -> None:
    release = threading.Event()
    server.serve(CONTENT[:3_000_000], claim=len(CONTENT), then=lambda: release.wait(30))
    script = "import sys; from fcn_cli.models import download; download.obtain_url(sys.argv[1])"
    running = subprocess.Popen([sys.executable, "-c", script, f"{server.url}/other.pth"])
    wait_until(lambda: [path.stat().st_size for path in tmp_path.rglob("*.part")] > [1_000_000])
    held = cache(tmp_path)
    server.serve(CONTENT)
    download.fetch(official)
    # What another process is downloading stays.
    assert cache(tmp_path) == sorted([*held, official.file_name])
    running.kill()
    running.wait()
    release.set()
    download.fetch(official)
    assert cache(tmp_path) == [official.file_name]


def redirect_to(target: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.end_headers()

    return answer


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_no_redirect_leads_away_from_https_or_to_another_protocol(
    fetch: Fetch, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0)
        place = f"127.0.0.1:{other.getsockname()[1]}/net.pth"
        server.answer = redirect_to(f"ftp://{place}")
        with pytest.raises(WeightsError, match="redirects from http to ftp, which is not followed"):
            fetch(f"{server.url}/net.pth", Timeouts())
        server.answer = redirect_to("file:///etc/passwd")
        with pytest.raises(WeightsError, match="not allowed"):
            fetch(f"{server.url}/net.pth", Timeouts())
        monkeypatch.setenv("SSL_CERT_FILE", str(encrypt(server, tmp_path)))
        server.answer = redirect_to(f"http://{place}")
        with pytest.raises(WeightsError, match="redirects from https to http, which is not followed"):
            fetch(f"{server.url.replace('http:', 'https:')}/net.pth", Timeouts())
        with pytest.raises(BlockingIOError):
            other.accept()
    assert cache(tmp_path) == []


def test_a_server_that_answers_nonsense(fetch: Fetch, server: Server, tmp_path: Path) -> None:
    def answer(status: int, reason: str, name: str, value: str) -> Callable[[BaseHTTPRequestHandler], None]:
        def send(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status, reason)
            handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(CONTENT)

        return send

    for status, name, value in (
        (404, "X", ""),
        (302, "Location", f"http://{'a' * 200}.example/"),
        (302, "Location", "http://[/"),
        (200, "Transfer-Encoding", "chunked"),
    ):
        server.answer = answer(status, "x" * 20_000, name, value)
        with pytest.raises(WeightsError, match="cannot be downloaded") as refused:
            fetch(f"{server.url}/net.pth", Timeouts())
        assert len(str(refused.value)) < 1000
    assert cache(tmp_path) == []
    for length in ("\xb2", "9" * 5000):
        server.answer = answer(200, "OK", "Content-Length", length)
        assert fetch(f"{server.url}/net.pth", Timeouts()).read_bytes() == CONTENT


def test_other_redirects_are_followed(fetch: Fetch, server: Server) -> None:
    server.serve(CONTENT)
    serve = server.answer
    server.answer = lambda handler: (
        serve(handler) if handler.path == "/there" else redirect_to(f"{server.url}/there")(handler)
    )
    assert fetch(f"{server.url}/net.pth", Timeouts()).read_bytes() == CONTENT


def encrypt(server: Server, folder: Path) -> Path:
    """Have a server speak TLS; return the certificate of its authority."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    make = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=fcn-test -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(
        ["openssl", *make.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.server.socket = context.wrap_socket(server.server.socket, server_side=True)
    return certificate


def test_two_processes_at_once_download_once(
    official: OfficialWeights, server: Server, tmp_path: Path
) -> None:
    server.serve(CONTENT)
    script = (
        "import sys; from fcn_cli.models import download, registry\n"
        "print(download.fetch(registry.OfficialWeights(sys.argv[1], sys.argv[2])))"
    )
    arguments = [sys.executable, "-c", script, official.url, official.sha256_prefix]
    running = [subprocess.Popen(arguments, stdout=subprocess.PIPE) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    for process in running:
        assert process.stdout is not None
        process.stdout.close()
    assert len(server.requests) == 1
    assert cache(tmp_path) == [official.file_name]


def test_order_of_places_and_the_mirror(
    official: OfficialWeights, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / official.file_name).write_bytes(CONTENT)
    monkeypatch.setenv("FCN_WEIGHTS_DIR", str(own))
    assert download.obtain(official).path == own / official.file_name
    assert server.requests == []
    monkeypatch.setenv("FCN_WEIGHTS_DIR", str(tmp_path / "nothing"))
    monkeypatch.setenv("FCN_WEIGHTS_MIRROR", f"{server.url}/company/")
    server.serve(CONTENT)
    assert download.obtain(official).path == tmp_path / "torch/hub/checkpoints" / official.file_name
    assert server.requests == [f"/company/{official.file_name}"]


def test_a_proxy_is_used(official: OfficialWeights, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.serve(CONTENT)
    monkeypatch.setenv("http_proxy", server.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    far = OfficialWeights("http://weights.invalid/net.pth", DIGEST[:8])
    download.fetch(far)
    assert server.requests == ["http://weights.invalid/net.pth"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_companys_own_certificate_authority(
    variable: str, server: Server, official: OfficialWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = encrypt(server, tmp_path)
    server.serve(CONTENT)
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FCN_WEIGHTS_MIRROR", server.url.replace("http:", "https:"))
    with pytest.raises(WeightsError, match="CERTIFICATE_VERIFY_FAILED"):
        download.fetch(official)
    monkeypatch.setenv(variable, str(certificate))
    assert download.fetch(official).read_bytes() == CONTENT
    monkeypatch.setenv(variable, str(tmp_path / "nowhere.pem"))
    download.fetch(official).unlink()
    with pytest.raises(WeightsError, match="not a valid file of CA certificates"):
        download.fetch(official)


def test_a_damaged_cached_file_is_named_with_the_fix_and_fetch_replaces_it(
    fcn: Fcn, make_images: MakeImages, server: Server, official: OfficialWeights, tmp_path: Path
) -> None:
    make_images(["a.png"])
    path = tmp_path / "torch/hub/checkpoints" / official.file_name
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[:-1] + b"?")
    for arguments in (("segment", "made", *SMALL, "-o", "out"), ("weights", "verify")):
        done = fcn(*arguments, code=2)
        assert f"{path}: damaged" in done.stderr
        assert "delete the file" in done.stderr
    assert not (tmp_path / "out").exists()
    server.serve(CONTENT)
    assert fcn("weights", "fetch", "efficientnet_lite0").stdout.strip() == str(path)
    assert "ok" in fcn("weights", "verify").stdout
    assert str(path) in fcn("weights", "list").stdout


def test_fetch_for_an_offline_machine(
    fcn: Fcn, server: Server, official: OfficialWeights, tmp_path: Path
) -> None:
    server.serve(CONTENT)
    done = fcn("weights", "fetch", "efficientnet_lite0", "--to", "stick")
    assert done.stdout.strip() == f"stick/{official.file_name}"
    assert (tmp_path / "stick" / official.file_name).read_bytes() == CONTENT


def test_offline_names_every_way_out(fcn: Fcn, make_images: MakeImages) -> None:
    make_images(["a.png"])
    done = fcn("segment", "made", "--offline", code=2)
    for text in ("fcn_resnet50_coco-1167a1af.pth", "--offline", "fcn weights fetch", "efficientnet_lite0"):
        assert text in done.stderr


def test_an_unwritable_cache_is_said(official: OfficialWeights, server: Server, tmp_path: Path) -> None:
    server.serve(CONTENT)
    (tmp_path / "torch").write_text("a file where a folder should be")
    with pytest.raises(WeightsError, match="cannot be written"):
        download.fetch(official)


# ---- checkpoints of the user's own


def state(classes: int = 21) -> dict[str, torch.Tensor]:
    model = BACKBONES["efficientnet_lite0"].build(classes)
    return dict(model.state_dict())


@pytest.fixture
def save(tmp_path: Path) -> Callable[[object], Path]:
    def write(content: object) -> Path:
        torch.save(content, tmp_path / "mine.pth")
        return tmp_path / "mine.pth"

    return write


Save = Callable[[object], Path]


@pytest.mark.long
def test_forms_of_one_checkpoint_give_the_same_masks(
    fcn: Fcn, make_images: MakeImages, save: Save, tmp_path: Path
) -> None:
    make_images(["a.png"])
    plain = state()
    forms: list[object] = [
        plain,
        {f"module.{key}": value for key, value in plain.items()}
        | {"aux_classifier.0.weight": torch.zeros(1)},
        {
            # Channels-last and in float64, without counters, and a part of a larger tensor.
            "model": {
                key: value.to(torch.float64, memory_format=torch.channels_last) if value.ndim == 4 else value
                for key, value in plain.items()
                if not key.endswith(".num_batches_tracked")
            }
            | {"classifier.4.bias": torch.cat([plain["classifier.4.bias"]] * 3)[21:42]},
            "optimizer": {"lr": 0.1},
            "epoch": 29,
            "args": argparse.Namespace(model="x", lr=0.1),
        },
    ]
    masks = []
    for index, form in enumerate(forms):
        fcn("segment", "made", *SMALL, "--weights", save(form), "-o", f"out{index}")
        masks.append(tree(tmp_path / f"out{index}/masks"))
    assert all(one == masks[0] for one in masks)


@pytest.mark.parametrize("classes", [2, 255])
def test_the_number_of_classes_is_the_classifiers(
    classes: int, fcn: Fcn, make_images: MakeImages, save: Save, tmp_path: Path
) -> None:
    make_images(["a.png"])
    fcn("segment", "made", *SMALL, "--weights", save(state(classes)), "-o", "out")
    labels = np.array(Image.open(tmp_path / "out/masks/a.png"))
    assert labels.max() < classes
    names = {row.split(",")[4] for row in (tmp_path / "out/stats.csv").read_text().splitlines()[1:]}
    assert names == {f"class_{index}" for index in np.unique(labels)}


@pytest.mark.long
def test_class_names(fcn: Fcn, make_images: MakeImages, save: Save, tmp_path: Path) -> None:
    make_images(["a.png"])
    checkpoint = save(state(3))
    (tmp_path / "names").write_text("sky\nearth\nwater\n")
    fcn("segment", "made", *SMALL, "--weights", checkpoint, "--class-names", "names", "-o", "out")
    assert {"sky", "earth", "water"} > {
        row.split(",")[4] for row in (tmp_path / "out/stats.csv").read_text().splitlines()[1:]
    } - {"sky", "earth", "water"}
    assert '"water"' in (tmp_path / "out/classes.json").read_text()
    (tmp_path / "names").write_text("sky\nearth\n")
    done = fcn(
        "segment", "made", *SMALL, "--weights", checkpoint, "--class-names", "names", "-o", "o2", code=2
    )
    assert "2 names for the 3 classes" in done.stderr
    fcn("segment", "made", *SMALL, "--weights", save(state()), "--class-names", "voc", "-o", "o3")
    assert VOC_CLASSES[15] in (tmp_path / "o3/classes.json").read_text()


class Malicious:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"touch {self.victim}",)


def test_a_pickle_with_code_is_refused_and_not_run(
    fcn: Fcn, make_images: MakeImages, save: Save, tmp_path: Path
) -> None:
    make_images(["a.png"])
    victim = tmp_path / "owned"
    done = fcn(
        "segment", "made", *SMALL, "--weights", save({**state(), "x": Malicious(victim)}), "-o", "o", code=2
    )
    assert "refused, it asks to run" in done.stderr
    assert "system" in done.stderr
    for protocol, text in ((2, "refused, it asks to run"), (4, "not a PyTorch file")):
        (tmp_path / "raw.pth").write_bytes(pickle.dumps(Malicious(victim), protocol))
        done = fcn("segment", "made", *SMALL, "--weights", "raw.pth", "-o", "o", code=2)
        assert text in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not victim.exists()
    assert not (tmp_path / "o").exists()


def without(key: str) -> dict[str, torch.Tensor]:
    return {k: v for k, v in state().items() if k != key}


@pytest.mark.long
@pytest.mark.parametrize(
    ("content", "text"),
    [
        (lambda: without("backbone.0.0.weight"), "backbone.0.0.weight missing"),
        (lambda: {**state(), "extra.weight": torch.zeros(1)}, "extra.weight unexpected"),
        (lambda: {**state(), "backbone.0.0.weight": torch.zeros(32, 3, 5, 5)}, "of another shape"),
        (lambda: without("classifier.4.weight"), "classifier.4.weight is missing"),
        (lambda: state(256), "256 classes; 2 to 255"),
        (lambda: state(0), "0 classes; 2 to 255"),
        (lambda: {**state(), "classifier.4.bias": torch.full((21,), float("nan"))}, "not finite"),
        (dict, "no state dict"),
        (lambda: [1, 2], "no state dict"),
        (
            lambda: {**state(), "backbone.0.0.weight": "text"},
            "backbone.0.0.weight is a str; a checkpoint has",
        ),
        (lambda: {5: torch.zeros(1)}, "not a state dict, a key in it is a int"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(
    content: Callable[[], object], text: str, fcn: Fcn, make_images: MakeImages, save: Save, tmp_path: Path
) -> None:
    make_images(["a.png"])
    done = fcn("segment", "made", *SMALL, "--weights", save(content()), "-o", "out", code=2)
    assert text in done.stderr
    assert "mine.pth" in done.stderr
    assert len([line for line in done.stderr.splitlines() if "preview" not in line]) == 1
    assert not (tmp_path / "out").exists()


FIRST = "backbone.0.0.weight"
SHAPE = (32, 3, 3, 3)


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as refused:
        Segmenter("efficientnet_lite0", weights=path)
    return str(refused.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_entries_that_are_no_plain_numbers_are_refused(save: Save) -> None:
    for value, text in (
        (torch.ones(SHAPE, dtype=torch.int64), "is of int64"),
        (torch.ones(SHAPE, dtype=torch.bool), "is of bool"),
        (torch.ones(SHAPE, dtype=torch.complex64), "is of complex64"),
        (torch.ones(SHAPE, dtype=torch.complex64).conj().imag, "is a negated view"),
        (torch.ones(SHAPE).to(torch.float8_e4m3fn), "is of float8_e4m3fn"),
        (torch.ones(SHAPE).to_sparse(), "is a sparse tensor"),
        (torch.ones(SHAPE, device="meta"), "is a tensor without content (device meta)"),
        (torch.quantize_per_tensor(torch.ones(SHAPE), 1.0, 0, torch.qint8), "is a quantised tensor"),
        (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "is a nested tensor"),
    ):
        said = refusal(save({**state(), FIRST: value}))
        assert f"mine.pth: {FIRST} {text}; a checkpoint has plain tensors of float16" in said
    expanded = torch.ones(1).expand(SHAPE)
    assert f"numbers of {FIRST} share memory" in refusal(save({**state(), FIRST: expanded}))


@pytest.mark.long
def test_a_small_file_takes_little_memory(
    fcn: Fcn, make_images: MakeImages, save: Save, tmp_path: Path
) -> None:
    """Numbers that are expanded, members that are compressed, and members of the same bytes."""
    expanded = torch.zeros(4 << 20).half().expand(1400, 4 << 20)
    before = peak_memory()
    for name, text in (
        (FIRST, f"{FIRST} of another shape ((1400, 4194304), expected"),
        ("x", "x unexpected"),
    ):
        assert text in refusal(save({**state(), name: expanded}))
    assert peak_memory() - before < 600 << 20
    make_images(["a.png"])
    checkpoint = save({**state(), "x": torch.zeros(8 << 20)})
    for compressed in (True, False):
        stream = io.BytesIO()
        with zipfile.ZipFile(checkpoint) as source, zipfile.ZipFile(stream, "w") as made:
            for member in source.infolist():
                content = source.read(member)
                if len(content) < 16 << 20:
                    made.writestr(member.filename, content)
                elif compressed:
                    made.writestr(member.filename, content, zipfile.ZIP_DEFLATED)
                else:
                    made.filelist += 9 * [made.filelist[0]]
        (tmp_path / "small.pth").write_bytes(stream.getvalue())
        done = fcn("segment", "made", *SMALL, "--weights", "small.pth", code=2)
        assert ("small.pth: compressed, which" if compressed else "truncated or damaged") in done.stderr


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def test_long_names_are_shortened(save: Save) -> None:
    long = "k" * 5_000_000
    for content in (
        {long: torch.zeros(1), **state()},
        {long: "text", **state()},
        {f"{long}.{key}": value for key, value in list(state().items())[-3:]},
        {**state(), FIRST: torch.zeros([1] * 64)},
    ):
        said = refusal(save(content))
        assert "mine.pth" in said
        assert len(said) < 1000


def old_format(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def zip_of(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"mine/{name.replace('_', '.')}", content)
    return stream.getvalue()


def test_files_that_are_no_checkpoint(fcn: Fcn, make_images: MakeImages, save: Save, tmp_path: Path) -> None:
    """What the file is, or that it is damaged, and how many bytes there are."""
    make_images(["a.png"])
    whole, old = save(state()).read_bytes(), old_format({"x": torch.zeros(9)})
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    place = whole.index(b"OrderedDict")
    for content, text in (
        (whole[: len(whole) // 2], f"truncated or damaged ({len(whole) // 2:,} bytes); copy it again"),
        (whole[:place] + b"0" + whole[place + 1 :], f"truncated or damaged ({len(whole):,} bytes)"),
        (b"PK\x03\x04 not a zip", "truncated or damaged (14 bytes)"),
        (old[:-7], f"truncated or damaged ({len(old) - 7} bytes)"),
        (b"", "the file is empty"),
        (b"text", "not a PyTorch file"),
        (pickle.dumps({"a": 1}), "not a PyTorch file"),
        ((SAMPLES / "chelsea.png").read_bytes(), "not a PyTorch file"),
        (
            b"<!DOCTYPE html>\n<html>Sign in</html>",
            "not a PyTorch file but a web page; download the file itself",
        ),
        (
            len(header).to_bytes(8, "little") + header + b"1234",
            "has no FCN classifier (classifier.4.weight is missing)",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "not a PyTorch file but a Git LFS pointer; fetch",
        ),
        (b"\x1f\x8b\x08\0\0\0\0\0{", "not a PyTorch file but compressed with gzip; unpack it"),
        (b"\x93NUMPY\x01\0", "not a PyTorch file but a NumPy array; save model.state_dict()"),
        (zip_of(a_txt=b"hello"), "a zip archive, but not a PyTorch file"),
        (zip_of(data_pkl=b"", constants_pkl=b""), "a TorchScript archive, not a checkpoint"),
    ):
        (tmp_path / "bad.pth").write_bytes(content)
        done = fcn("segment", "made", *SMALL, "--weights", "bad.pth", code=2)
        assert f"bad.pth: {text}" in done.stderr
        assert "more than weights" not in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert "nowhere.pth: cannot be read" in fcn("segment", "made", "--weights", "nowhere.pth", code=2).stderr


# ---- a file that is replaced while a run starts


def with_other_classes() -> dict[str, torch.Tensor]:
    """The preview's weights with the classes in another order: another hash, and other masks."""
    loaded = torch.load(io.BytesIO(CONTENT), weights_only=True)
    return {k: v.roll(1, 0) if k.startswith("classifier.4.") else v for k, v in loaded.items()}


@pytest.mark.long
def test_a_checkpoint_replaced_while_waiting_for_the_lock_is_recorded_as_what_it_is(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images(["a.png", "b.png"])
    shutil.copy(BUNDLED, tmp_path / "mine.pth")
    torch.save(with_other_classes(), tmp_path / "new.pth")
    fcn("segment", "made", *SMALL, "--weights", tmp_path / "new.pth", "-o", "expected")
    (tmp_path / "out").mkdir()
    lock = filelock.FileLock(tmp_path / "out/.fcn.lock")
    with lock, (tmp_path / "err").open("wb") as stream:
        line = command("segment", "made", *SMALL, "--weights", "mine.pth", "-o", "out", "--wait", "60")
        waiting = subprocess.Popen(line, cwd=tmp_path, stderr=stream)
        wait_until(lambda: b"waiting for another run" in (tmp_path / "err").read_bytes())
        os.replace(tmp_path / "new.pth", tmp_path / "mine.pth")
    assert waiting.wait(timeout=90) == 0
    recorded = json.loads((tmp_path / "out/settings.json").read_text())
    digest = hashlib.sha256((tmp_path / "mine.pth").read_bytes()).hexdigest()
    assert recorded["weights_sha256"] == digest
    assert recorded["labels"]["weights"] == digest
    masks = tree(tmp_path / "out/masks")
    assert masks == tree(tmp_path / "expected/masks")
    fcn("segment", "made", *SMALL, "-o", "old")
    assert masks != tree(tmp_path / "old/masks")
    # So the next run with it has nothing to do, and one with the old file is refused.
    again = fcn("segment", "made", *SMALL, "--weights", "mine.pth", "-o", "out")
    assert "nothing to do" in again.stderr
    assert "--weights: " in fcn("segment", "made", *SMALL, "-o", "out", code=2).stderr


def replace_before_loading(path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace a file after it was hashed for the request, before it is loaded."""
    real: Callable[..., Any] = weights._read

    def replaced(*arguments: Any) -> Any:
        path.write_bytes(content)
        return real(*arguments)

    monkeypatch.setattr(weights, "_read", replaced)


def test_a_checkpoint_replaced_before_it_is_loaded_ends_the_run(
    fcn: Fcn, make_images: MakeImages, save: Save, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_images(["a.png"])
    path = tmp_path / "mine.pth"
    shutil.copy(BUNDLED, path)
    torch.save(with_other_classes(), tmp_path / "new.pth")
    new = (tmp_path / "new.pth").read_bytes()
    with monkeypatch.context() as patch:
        replace_before_loading(path, new, patch)
        done = fcn("segment", "made", *SMALL, "--weights", path, "-o", "out", code=2)
    assert f"{path}: was changed while this run started" in done.stderr
    for digest in (DIGEST, hashlib.sha256(new).hexdigest()):
        assert digest[:8] in done.stderr
    assert len([line for line in done.stderr.splitlines() if "preview" not in line]) == 1
    assert not (tmp_path / "out").exists()
    fcn("segment", "made", *SMALL, "--weights", path, "-o", "out")


def test_official_weights_replaced_before_they_are_loaded_end_the_run(
    fcn: Fcn,
    make_images: MakeImages,
    official: OfficialWeights,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    make_images(["a.png"])
    path = tmp_path / "torch/hub/checkpoints" / official.file_name
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    torch.save(with_other_classes(), tmp_path / "new.pth")
    replace_before_loading(path, (tmp_path / "new.pth").read_bytes(), monkeypatch)
    done = fcn("segment", "made", *SMALL, "-o", "out", code=2)
    assert f"{path}: was changed while this run started" in done.stderr
    assert not (tmp_path / "out").exists()


def test_no_network_is_noticed_soon_by_the_command_itself(make_images: MakeImages, tmp_path: Path) -> None:
    """The official URL through a proxy that is not there: no test may reach the real server."""
    make_images(["a.png"])
    environment = {**os.environ, "https_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    started = time.monotonic()
    done = subprocess.run(
        command("segment", "made"), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert time.monotonic() - started < 15
    assert done.returncode == 2
    assert "download.pytorch.org" in done.stderr
    assert len(done.stderr.splitlines()) == 1

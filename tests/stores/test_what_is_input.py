"""Which objects of a bucket are images, in how many requests, and what a refusal says."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from fcn_cli.common.errors import FailureKind, RequestError
from fcn_cli.common.output_layout import SETTINGS_FILE, SETTINGS_MARK
from fcn_cli.inputs.discovery import Found, InputRequest, discover
from tests.conftest import SMALL, Fcn, MakeImages
from tests.s3_server import SECRET, S3Server

pytestmark = pytest.mark.slow

SETTINGS = f'{{"{SETTINGS_MARK}": 2}}'.encode()


def find(*inputs: str, output: str | None = None, **options: Any) -> Found:
    return discover(InputRequest(inputs, **options), output=output)


def images(found: Found) -> list[str]:
    return [source.image for source in found.sources]


def test_outputs_of_fcn_in_a_bucket_are_not_input(s3: S3Server) -> None:
    keys = ["a.png", "masks/own.png", "old/masks/a.png", "old/color/b.png", "new/masks/a.png", "no/c.png"]
    s3.put("photos", {f"in/{key}": b"x" for key in keys})
    s3.put("photos", {f"in/old/{SETTINGS_FILE}": SETTINGS, f"in/no/{SETTINGS_FILE}": b'{"other": 1}'})
    own = "s3://photos/in/new/"
    assert images(find("s3://photos/in", output=own)) == ["a.png", "masks/own.png", "no/c.png"]
    assert images(find("s3://photos/in/**/[ab].png", output=own)) == ["a.png"]
    for inside in ("s3://photos/in/old", "s3://photos/in/old/masks/", "s3://photos/in/old/color/b.png"):
        found = find(inside, output=own)
        assert images(found) == []
        assert "output directory of fcn" in found.ignored_text()
    assert images(find("s3://photos/in/new/masks", output=own)) == []
    listed = ["s3://photos/in/old/masks/a.png", "s3://photos/in/a.png"]
    assert images(find(listed=listed, root="s3://photos/in")) == ["a.png"]


def test_directories_that_systems_keep_for_themselves_are_not_input(s3: S3Server) -> None:
    keys = ["a.png", "@eaDir/a.png/thumb.jpg", "sub/#recycle/b.png", "sub/#snapshot/now/c.png"]
    s3.put("photos", dict.fromkeys(keys, b"x"))
    found = find("s3://photos")
    assert images(found) == ["a.png"]
    assert dict(found.ignored) == {"in @eaDir": 1, "in #recycle": 1, "in #snapshot": 1}
    assert images(find("s3://photos/sub/#recycle")) == ["b.png"]


def test_searching_follows_the_rules_for_files(s3: S3Server) -> None:
    keys = ["a.png", ".hidden.png", "b/.c/d.png", "b/e.txt", "b/f", "b/g.JPG", "g/", "raw/h.png"]
    s3.put("photos", dict.fromkeys(keys, b"x"))
    found = find("s3://photos", exclude=["raw/**"])
    assert images(found) == ["a.png", "b/g.JPG"]
    assert dict(found.ignored) == {"hidden": 2, ".txt": 1, "without a suffix": 1, "excluded": 1}
    assert found.directories == []
    assert images(find("s3://photos/b", "s3://photos")) == [
        "b/g.JPG",
        "photos/a.png",
        "photos/b/g.JPG",
        "photos/raw/h.png",
    ]
    # What is named is tried whatever it is called.
    assert images(find("s3://photos/b/f")) == ["f"]


def test_an_object_goes_before_a_pattern(s3: S3Server) -> None:
    keys = [
        "[x].png",
        "x.png",
        "a b.png",
        "a.png",
        "what?.png",
        "whats.png",
        "deep/er/[1]/#?.png",
        "deep/x.png",
    ]
    s3.put("photos", dict.fromkeys((f"in/{key}" for key in keys), b"x"))
    for pattern, expected in (
        ("in/[x].png", ["[x].png"]),
        ("in/what?.png", ["what?.png"]),
        ("in/what??png", ["what?.png", "whats.png"]),
        ("in/[xa]*.png", ["a b.png", "a.png", "x.png"]),
        ("in/[[]*", ["[x].png"]),
        ("*/deep/*/[[]1]/*[?].png", ["in/deep/er/[1]/#?.png"]),
        ("in/deep/**/*.png", ["er/[1]/#?.png", "x.png"]),
        ("in/deep/er/[1]", ["#?.png"]),
    ):
        assert images(find(f"s3://photos/{pattern}")) == expected, pattern


def test_no_name_leads_out_of_the_output_directory(s3: S3Server) -> None:
    keys = ["a//b.png", "c/../../../d.png", "/e.png", "f.png"]
    s3.put("photos", dict.fromkeys(keys, b"x"))
    listed = find(listed=[f"s3://photos/{key}" for key in keys], root="s3://photos/").sources
    outputs = {source.image: (source.output, source.problem and source.problem.kind) for source in listed}
    refused = ("", FailureKind.OUTPUT_REFUSED)
    assert outputs == {**dict.fromkeys(keys[:3], refused), "f.png": ("f.png", None)}


def test_a_refusal_says_what_is_wrong(s3: S3Server, fcn: Fcn, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.put("photos", {"a.png": b"x"})
    for url, text in (
        ("s3://photos/none", "s3://photos/none: no such object, and none below it"),
        ("s3://photos/none*", "s3://photos/none*: no such object"),
        ("s3://no-such-bucket/a", "s3://no-such-bucket/a: cannot be listed (no such bucket)"),
        ("s3://X/a", "s3://X/a: cannot be listed ("),
    ):
        done = fcn("segment", url, *SMALL, "-o", "out", code=2)
        assert text in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not Path("out").exists()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
    # The environment is read when a process first uses a store.
    monkeypatch.setattr("fcn_cli.common.stores._file_systems", {})
    done = fcn("segment", "s3://photos/a.png", *SMALL, "-o", "out", code=2)
    assert "s3://photos/a.png: cannot be listed (no connection to the server)" in done.stderr
    assert SECRET not in done.stderr


def test_a_name_is_kept_as_long_as_its_object_exists(
    s3: S3Server, fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    folder = make_images(["a.png", "b.png"])
    data, other = ((folder / name).read_bytes() for name in ("a.png", "b.png"))
    s3.put("photos", {"in/a.png": data, "in/b.png": data})
    s3.put("results", {"in/a.png": other, "in/b.png": data})
    fcn("segment", "s3://photos/in", *SMALL, "--workers", "0", "-o", "out")

    def planned() -> list[str]:
        done = fcn("segment", "s3://results/in", *SMALL, "-o", "out", "--dry-run")
        return [line.partition("\t")[0] for line in done.stdout.splitlines()]

    assert planned() == ["refused", "refused"]
    for key in ("in/a.png", "in/b.png"):
        s3.client.delete_object(Bucket="photos", Key=key)
    # Moved to another bucket, it is the same image while its content is the same.
    assert planned() == ["segment", "skip"]


def test_one_png_on_stdout_is_of_one_object(s3: S3Server, fcn: Fcn) -> None:
    s3.put("photos", {"in/a.png": b"x", "in/b.png": b"x"})
    for several in ("s3://photos/in", "s3://photos/in/*.png"):
        done = fcn("segment", several, *SMALL, "-o", "-", code=2)
        assert f"{several}: -o - takes one image file" in done.stderr


@contextmanager
def pages(count: int, requests: list[str]) -> Iterator[str]:
    """Run a server whose only bucket lists so many pages of 1000 objects; note what it is asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            requests.append(f"GET {query.get('prefix', [''])[0]}")
            page = int(query.get("continuation-token", ["0"])[0])
            last = page + 1 == count
            objects = "".join(
                f"<Contents><Key>in/{page * 1000 + number:07}.png</Key><Size>1</Size>"
                "<ETag>&quot;0&quot;</ETag><LastModified>2026-11-24T03:00:00.000Z</LastModified></Contents>"
                for number in range(1000)
            )
            token = "" if last else f"<NextContinuationToken>{page + 1}</NextContinuationToken>"
            body = (
                '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                f"<IsTruncated>{str(not last).lower()}</IsTruncated>{token}{objects}</ListBucketResult>"
            ).encode()
            self.answer(200, body)

        def do_HEAD(self) -> None:
            requests.append(f"HEAD {self.path}")
            self.answer(404, b"")

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=lambda: server.serve_forever(0.01), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.long
def test_many_objects_are_one_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    requests: list[str] = []
    with pages(5, requests) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "dummy")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        found = find("s3://bucket/in")
        assert images(found) == [f"{number:07}.png" for number in range(5000)]
        assert requests == ["HEAD /bucket/in", *["GET in/"] * 5]
        with pytest.raises(RequestError, match="an input name is empty"):
            find("")

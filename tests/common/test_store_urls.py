"""URLs of objects, their drivers, and what goes wrong, without a server."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import fsspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fcn_cli.common import store_urls
from fcn_cli.common.errors import RequestError
from fcn_cli.common.store_urls import AbsolutePaths
from fcn_cli.common.stores import store_at


@pytest.mark.parametrize(
    "text", ["s3://b/k", "gs://b", "HTTPS://host/a", "memory://x", "simplecache::s3://b/k"]
)
def test_a_url_is_known(text: str) -> None:
    assert store_urls.is_url(text)


@pytest.mark.parametrize("text", ["photos", "/a/b", "C:\\photos", "c://x", "a/b://c", "s3:/b", "://a", "-"])
def test_a_path_is_no_url(text: str) -> None:
    assert not store_urls.is_url(text)


def test_a_key_is_taken_literally() -> None:
    assert store_urls.split("S3://bucket/a b/#1?x=[y]%20ü/") == ("s3", "s3://bucket", "a b/#1?x=[y]%20ü/")
    assert store_urls.split("s3://bucket") == ("s3", "s3://bucket", "")


def test_names_on_a_web_server_are_as_people_read_them() -> None:
    assert store_urls.name_in("https://host/a%20b/%C3%BC%23.jpg?size=1#top") == "a b/ü#.jpg"
    assert store_urls.name_in("s3://bucket/a%20b?c#d") == "a%20b?c#d"


@pytest.mark.parametrize("url", ["s3:///key", "s3://", "https:///a"])
def test_a_url_without_a_place_is_refused(url: str) -> None:
    with pytest.raises(RequestError, match=r"has no (bucket|server)"):
        store_urls.split(url)


@pytest.mark.parametrize("url", ["https://me:pass@host/a", "https://token@host/a", "s3://key:pass@bucket/a"])
def test_a_password_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(RequestError, match="a URL must not contain a password") as refused:
        store_at(url)
    assert "pass@" not in str(refused.value)
    assert "token" not in str(refused.value)


def test_a_file_url_is_a_path() -> None:
    assert store_urls.local_path("file:///a/b c#1.jpg") == "/a/b c#1.jpg"
    assert store_urls.local_path("s3://b/k") == "s3://b/k"
    assert store_urls.local_path("filed") == "filed"


@pytest.mark.parametrize("url", ["foo://a/b", "simplecache::s3://b/k", "cached://a/b"])
def test_an_unknown_kind_of_store_is_refused(url: str) -> None:
    with pytest.raises(RequestError, match="not a supported store"):
        store_at(url).check_driver()


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [("s3://b/k", "s3fs", "s3"), ("gs://b/k", "gcsfs", "gs"), ("https://h/k", "aiohttp", "http")],
)
def test_a_missing_driver_names_its_extra(
    url: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert fsspec.available_protocols()
    known: dict[str, type] = {}
    for name in ("_registry", "registry"):
        monkeypatch.setattr(sys.modules["fsspec.registry"], name, known)
    with pytest.raises(RequestError, match=rf"not installed; pip install 'fcn-cli\[{extra}\]'"):
        store_at(url).check_driver()


def test_objects_in_memory_are_written_and_read() -> None:
    store = store_at("memory://test-store-urls/ä b")
    names = ["a#b?.txt", "[x].txt", "100%.txt"]
    for name in names:
        store.write(name, name.encode())
    assert [found.name for found in store.list()] == sorted(names)
    assert [store.read(name).data for name in names] == [name.encode() for name in names]
    assert store.info("none") is None
    with pytest.raises(FileNotFoundError):
        store.read("none")
    for name in names:
        store.remove(name)
    assert list(store.list()) == []


class _Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = int(self.path.strip("/").partition("/")[0])
        self.send_response(status)
        self.send_header("ETag", 'W/"abc"')
        self.send_header("Last-Modified", "Tue, 24 Nov 2026 03:00:00 GMT")
        self.send_header("Content-Length", str(len(self.path)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(self.path.encode())

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    Thread(target=lambda: server.serve_forever(0.01), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_file_on_a_web_server_is_read(web: str) -> None:
    store = store_at(web)
    content = store.read("200/a%20b%23%3F%25/%C3%BC?q=1")
    assert content.data == b"/200/a%20b%23%3F%25/%C3%BC?q=1"
    assert content.object.etag == "abc"
    assert content.object.mtime_ns == 1_795_489_200 * 10**9
    assert store.info("200/x") == ("200/x", 6, "abc", content.object.mtime_ns)
    assert store.info("404/x") is None


@pytest.mark.parametrize(
    ("status", "error", "text"),
    [
        (404, FileNotFoundError, "no such object"),
        (403, PermissionError, "access denied"),
        (500, OSError, "the server answered 500"),
    ],
)
def test_what_a_web_server_answers_is_said(web: str, status: int, error: type[OSError], text: str) -> None:
    with pytest.raises(error, match=text):
        store_at(web).read(f"{status}/x?sig=secret")


def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(ConnectionError, match="no connection to the server"):
        store_at(url).read("a")


PARTS = st.sampled_from(["/", "/", "//", "a", "b.jpg", ".", "..", "é", " "])


@pytest.mark.long
@settings(max_examples=1000)
@example(["//./a", "//a", "///a", "/a", "./", ""])
@given(st.lists(st.lists(PARTS, max_size=6).map("".join), max_size=8))
def test_absolute_paths_are_those_of_the_standard_library(paths: list[str]) -> None:
    absolute = AbsolutePaths()
    assert [absolute(path) for path in paths] == [os.path.abspath(path) for path in paths]

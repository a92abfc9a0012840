"""A web server on loopback with files in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit


class WebServer:
    """Serves `files`, by decoded path; `headers` are sent with each, and `status` says what else to answer.

    A file in `untold` is sent without its length, but for what its own headers say.
    `requests` holds the method and path of each request, without the query.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.status: dict[str, int] = {}
        self.headers: dict[str, str] | None = None
        self.untold: dict[str, dict[str, str]] = {}
        self.requests: list[tuple[str, str]] = []
        self.url = ""

    def count(self, method: str) -> int:
        return sum(each == method for each, _ in self.requests)

    def answer(self, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
        path = unquote(urlsplit(path).path)
        self.requests.append((method, path))
        if path in self.status:
            return self.status[path], {}, b""
        if path not in self.files:
            return 404, {}, b""
        data = self.files[path]
        headers = self.headers
        if headers is None:
            headers = {"ETag": f'"{hashlib.md5(data).hexdigest()}"'}
        return 200, headers, data


@contextmanager
def web_server() -> Iterator[WebServer]:
    """Run a server."""
    state = WebServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, data = state.answer(self.command, self.path)
            self.send_response(status)
            told = state.untold.get(unquote(urlsplit(self.path).path), {"Content-Length": str(len(data))})
            for name, value in {**headers, **told}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                # A reader that has had enough closes the connection.
                with suppress(ConnectionError):
                    self.wfile.write(data)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=lambda: server.serve_forever(0.01), daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()

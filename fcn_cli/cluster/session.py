"""A Ray session: start Ray on this machine or join a cluster, quietly, and clean up afterwards."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common import resources
from ..common.errors import FcnError, RequestError
from ..common.signals import ENDING_SIGNALS, Interrupted

LOCAL = "local"
"""Start Ray on this machine, for this run only."""

_CONNECT_SECONDS = 4.0
"""For the connection, and then for the answer."""

# The head node speaks gRPC, which is HTTP/2 (RFC 9113, section 3.4): both sides begin with a SETTINGS frame.
# A head that wants TLS answers this with an alert (RFC 8446, section 6).
_SETTINGS = b"\x04"
_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + _SETTINGS + b"\0" + b"\0\0\0\0"
_TLS_ALERT = b"\x15"

_OBJECT_STORE_BYTES = 512 << 20
"""For the network, which every actor reads once, and some lists."""

_LONGEST_DIRECTORY = 40
"""Ray puts sockets 60 characters below its directory, and their paths have at most 107."""

_ENABLE_CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"

_QUIET = {
    # Ray's own variables, read when it is imported, and by the processes that it starts.
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # A thread that comes too late must not start another Ray.
    "RAY_ENABLE_AUTO_CONNECT": "0",
}


@dataclass(frozen=True)
class Address:
    """The host and the port of a running cluster's head node."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def check_answers(self) -> None:
        """Raise RequestError within seconds when nothing answers there, or something that is not Ray.

        Ray itself would try for minutes.
        """
        try:
            with socket.create_connection((self.host, self.port), timeout=_CONNECT_SECONDS) as connection:
                connection.sendall(_HTTP2_GREETING)
                answer = connection.recv(len(_HTTP2_GREETING))
            if answer[3:4] == _SETTINGS or answer[:1] == _TLS_ALERT:
                return
            reason = "not a Ray server"
        except OSError as error:
            reason = error.strerror or str(error)
        raise RequestError(
            f"--ray {self}: no answer ({reason}); `ray status` on a node of the cluster shows its "
            "address, and --ray local needs no cluster"
        )


def parse_address(text: str) -> Address | None:
    """Return the address of a cluster, or None for ``local``.

    Raises
    ------
    RequestError
        The text is a ``ray://`` URL.
    ValueError
        It is neither ``local`` nor HOST:PORT.
    """
    if text == LOCAL:
        return None
    if text.lower().startswith("ray://"):
        raise RequestError(
            f"--ray {text}: Ray Client (ray://) is not supported: run fcn on a node of the cluster and give "
            "the HOST:PORT of the head node, whose port is 6379 unless it was started with another"
        )
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]]+)):([0-9]{1,5})", text)
    if match is None or not 0 < int(match[3]) < 65536:
        raise ValueError(text)
    return Address(match[1] or match[2], int(match[3]))


@contextlib.contextmanager
def started(address: Address | None) -> Iterator[None]:
    """Connect to Ray; at the end leave it, and with it all processes that this started.

    Parameters
    ----------
    address
        The cluster to join, or None to start Ray on this machine, for this process only: behind a token
        that nobody else can read, and gone when this process is, however it ends.

    Raises
    ------
    RequestError
        Ray cannot be started, or the cluster cannot be joined.
    Interrupted
        A signal came in the middle.
    """
    with contextlib.ExitStack() as ending:
        ending.enter_context(_silence())
        local = _local_options(ending) if address is None else {"address": str(address)}
        ending.enter_context(_variables(_QUIET))
        ending.callback(_leave)
        _connect(local, address)
        yield


def _connect(options: dict[str, Any], address: Address | None) -> None:
    import ray

    handlers = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    try:
        with _stderr_closed():
            ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)
    except SystemExit:
        # Ray's handler of SIGTERM, in the moment before ours is back.
        raise Interrupted(signal.SIGTERM) from None
    except FcnError:
        raise
    except Exception as error:  # noqa: BLE001 - what is wrong with a cluster comes in many types
        raise RequestError(_why(error, address)) from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _why(error: Exception, address: Address | None) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if address is None:
        return f"--ray local: Ray failed to start ({text[:300]})"
    # Sometimes only the text of the cause says so.
    if any("AuthenticationError" in repr(each) for each in (error, error.__cause__)):
        return (
            f"--ray {address}: the cluster requires a token: put it into ~/.ray/auth_token (readable "
            "only by you), or name its file in RAY_AUTH_TOKEN_PATH, and set RAY_AUTH_MODE=token"
        )
    return (
        f"--ray {address}: cannot join the cluster ({text[:300]}); fcn runs on a node of it: `ray start "
        f"--address={address}` makes this machine one"
    )


def _leave() -> None:
    import ray

    with contextlib.suppress(Exception):
        ray.shutdown()


def _local_options(ending: contextlib.ExitStack) -> dict[str, Any]:
    """Return how to start Ray on this machine; `ending` removes what that needs."""
    # Without it other users of this machine could run code as this one.
    directory = tempfile.mkdtemp(prefix="fcn-ray-")
    ending.callback(shutil.rmtree, directory, ignore_errors=True)
    token = Path(directory, "token")
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    # Without clusters, as on Windows and macOS, Ray's servers listen on the loopback address only.
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), _ENABLE_CLUSTERS: "0"}
    ending.enter_context(_variables(variables))
    options: dict[str, Any] = {
        "address": "local",
        "num_cpus": resources.cpu_count(),
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
    }
    if len(directory) <= _LONGEST_DIRECTORY and sys.platform != "win32":
        options["_temp_dir"] = directory
    return options


@contextlib.contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    """Set variables for Ray, which has no other way to be told; put back what was there."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _stderr_closed() -> Iterator[None]:
    """Discard what is written to the file descriptor: Ray's C++ code says there which level it logs."""
    try:
        kept = os.dup(2)
    except OSError:
        yield
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep Ray's log lines and warnings from the user: what matters comes as an exception."""
    # For good: a thread of Ray can live longer than its session, and complain of that.
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def node_resources() -> list[dict[str, float]]:
    """Return the resources of each node that is alive: ``{"CPU": 8.0, "GPU": 2.0, …}``."""
    import ray

    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def ray_error() -> type[Exception]:
    """Return the base class of what Ray raises."""
    import ray

    error: type[Exception] = ray.exceptions.RayError
    return error


def is_bug(error: BaseException) -> bool:
    """Say whether an error of Ray is an exception in our own code in an actor."""
    import ray

    return isinstance(error, ray.exceptions.RayTaskError)


def reason(error: BaseException) -> str:
    """Return what happened in a few words: Ray's messages have many lines, with a traceback."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        error = cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__

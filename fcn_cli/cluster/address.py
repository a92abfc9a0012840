"""Where a Ray cluster is: on this machine (``local``), or at the HOST:PORT of its head node."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

from ..common.errors import RequestError

LOCAL = "local"
"""Start Ray on this machine, for this run only."""

_CONNECT_SECONDS = 4.0
"""For the connection, and then for the answer."""

# The head node speaks gRPC, which is HTTP/2 (RFC 9113, section 3.4): both sides begin with a SETTINGS frame.
# A head that wants TLS answers this with an alert (RFC 8446, section 6).
_SETTINGS = b"\x04"
_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + _SETTINGS + b"\0" + b"\0\0\0\0"
_TLS_ALERT = b"\x15"


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
            reason = "what listens there is not Ray"
        except OSError as error:
            reason = error.strerror or str(error)
        raise RequestError(
            f"--ray {self}: nothing answers there ({reason}); `ray status` on a node of the cluster says its "
            "address, and --ray local needs no cluster"
        )


def parse(text: str) -> Address | None:
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

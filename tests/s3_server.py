"""A real S3 server on loopback (moto), and the environment in which a command finds it."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

SECRET = "dummy-secret-that-nobody-may-print"

_PROGRAM = """
import sys, logging
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").disabled = True
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class S3Server:
    """The server: its URL, and a client of another make than the one that is tested."""

    url: str
    client: Any

    @property
    def environment(self) -> Mapping[str, str]:
        """What makes a command use it, for `monkeypatch.setenv` or a process's environment."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "dummy",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def put(self, bucket: str, objects: Mapping[str, bytes]) -> None:
        """Write objects, by key."""
        for key, data in objects.items():
            self.client.put_object(Bucket=bucket, Key=key, Body=data)

    def objects(self, bucket: str, prefix: str = "") -> dict[str, bytes]:
        """Return all objects of a bucket, by key."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return {key: self.client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run a server; skip the test where moto, boto3 or s3fs is missing."""
    for module in ("moto.server", "s3fs"):
        pytest.importorskip(module)
    boto3 = pytest.importorskip("boto3")
    running = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    try:
        url = f"http://127.0.0.1:{int(running.stdout.readline())}"
        client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="dummy",
            aws_secret_access_key=SECRET,
        )
        yield S3Server(url, client)
    finally:
        running.communicate("")


def reset(server: S3Server) -> None:
    """Delete all buckets and objects."""
    request = urllib.request.Request(f"{server.url}/moto-api/reset", method="POST")
    urllib.request.urlopen(request).close()

"""Buckets on a real S3 server on loopback; everything here is `slow`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.s3_server import S3Server, reset, s3_server


@pytest.fixture(scope="session")
def running_s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(running_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """A server with two empty buckets, ``photos`` and ``results``, that this process and its children use."""
    reset(running_s3)
    for name in ("photos", "results"):
        running_s3.client.create_bucket(Bucket=name)
    for name, value in running_s3.environment.items():
        monkeypatch.setenv(name, value)
    return running_s3

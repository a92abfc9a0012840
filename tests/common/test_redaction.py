"""What URLs look like in messages, logs and records: no secret in them, and one of each image."""

from __future__ import annotations

import hashlib

import pytest

from fcn_cli.common.errors import FailureKind, ImageError, RequestError
from fcn_cli.common.redaction import public_url, redacted


def hashed(value: str) -> str:
    return f"~{hashlib.sha256(value.encode()).hexdigest()[:16]}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/a%20b.jpg", "https://host/a%20b.jpg"),
        ("https://host/a?v=1&width=200&format=jpg", "https://host/a?v=1&width=200&format=jpg"),
        ("https://host/a?b=1&X-Amz-Signature=s&X-Amz-Credential=x%2Fy", f"https://host/a?b={hashed('1')}"),
        ("https://host/a?Signature=s&Expires=1&GoogleAccessId=me", "https://host/a"),
        ("https://host/a?sv=1&se=2&sig=s&sp=r", "https://host/a"),
        ("https://host/a?apikey=s&api_key=s&x-api-key=s&password=s&access_token=s", "https://host/a"),
        ("https://host/a?client%5Fsecret=s&v=2", "https://host/a?v=2"),
        ("https://host/a?name=x%20y&w=", f"https://host/a?name={hashed('x y')}&w="),
        ("https://host/a?s3cr3t", f"https://host/a?{hashed('s3cr3t')}"),
        ("https://host/a#s3cr3t", "https://host/a"),
        ("https://host?key=s#t?u=v", f"https://host?key={hashed('s')}"),
        ("https://me:s@host:81/a", "https://host:81/a"),
        ("https://s@[::1]:81/a", "https://[::1]:81/a"),
        ("https://me:s/s?s#s@host/a@2x.png", "https://2x.png"),
        ("https://host:81/a@2x.png", "https://host:81/a@2x.png"),
        ("foo://me:s@host/a?b=s#s", f"foo://host/a?b={hashed('s')}"),
        ("s3://key:s@bucket/a", "s3://bucket/a"),
        # In an object store these are a part of the name.
        ("s3://bucket/a b?c=1#d", "s3://bucket/a b?c=1#d"),
        ("abfs://container@account.host/a?b#c", "abfs://container@account.host/a?b#c"),
        ("abfs://me:s@account.host/a", "abfs://account.host/a"),
    ],
)
def test_a_url_is_without_its_secrets(url: str, shown: str) -> None:
    assert public_url(url) == shown
    assert public_url(shown) == shown
    text = f"cannot read '{url}': it is gone; give {url}."
    if " " not in url:
        assert redacted(text) == f"cannot read '{shown}': it is gone; give {shown}."


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/out?key=s3cr3t&X-Amz-Signature=s3cr3t", f"s3://bucket/out?key={hashed('s3cr3t')}"),
        ("abfs://container@host/out?sv=1&sig=s3cr3t", "abfs://container@host/out"),
        ("gs://bucket/what?.jpg", "gs://bucket/what?.jpg"),
    ],
)
def test_parameters_in_the_key_of_an_object_are_hidden_from_people(url: str, shown: str) -> None:
    """There is no such thing, but somebody may have taken a signed URL's: -o s3://bucket/out?key=…"""
    assert public_url(url) == url
    assert redacted(f"--output {url}: cannot be written") == f"--output {shown}: cannot be written"
    assert str(RequestError(url)) == shown


def test_what_tells_images_apart_still_does() -> None:
    urls = {public_url(f"https://host/get?id={number}&token={number}") for number in range(100)}
    assert len(urls) == 100


def test_errors_hold_no_secret_wherever_they_go() -> None:
    url = "https://me:s3cr3t@host/a?token=s3cr3t#s3cr3t"
    error = ImageError(FailureKind.UNREADABLE, f"{url}: cannot be read")
    assert str(error) == error.failure.message == "https://host/a: cannot be read"
    assert str(RequestError(f"{url}, {url}")) == "https://host/a, https://host/a"
    assert redacted("nothing here: a/b?token=1") == "nothing here: a/b?token=1"

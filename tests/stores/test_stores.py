"""What the rest is built on: objects are listed, read and written on a real S3 server."""

from __future__ import annotations

import hashlib
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from fcn_cli.common.stores import StoreConflict, TooLarge, object_at, store_at
from tests.s3_server import SECRET, S3Server

pytestmark = pytest.mark.slow

ODD_NAMES = [
    "a b.txt",
    "#1.txt",
    "what?.txt",
    "100%25.txt",
    "50%.txt",
    "[x].txt",
    "*.txt",
    "ü.txt",
    "u\u0308.txt",
    "a+b&c=d;e.txt",
    "~tilde'\"quote.txt",
    "?versionId=1.txt",
    "double//slash.txt",
    "../up/./.txt",
    "deep/er/[1]/#.txt",
]


def test_objects_are_written_listed_and_read_under_any_name(s3: S3Server) -> None:
    store = store_at("s3://results/a [b] #c?/ü%20")
    contents = {name: name.encode() for name in ODD_NAMES}
    for name, data in contents.items():
        store.write(name, data)
    assert s3.objects("results") == {f"a [b] #c?/ü%20/{name}": data for name, data in contents.items()}
    listed = list(store.list())
    assert [found.name for found in listed] == sorted(contents)
    for found in listed:
        data = contents[found.name]
        assert (found.size, found.etag) == (len(data), hashlib.md5(data).hexdigest())
        content = store.read(found.name)
        assert (content.data, content.object.etag, content.object.size) == (data, found.etag, found.size)
        assert content.object.mtime_ns is not None
        assert store.info(found.name) == found
    assert list(store.infos(sorted(contents))) == listed
    for name in contents:
        store.remove(name)
        assert not store.exists(name)
        store.remove(name)
    assert s3.objects("results") == {}


def test_a_listing_is_of_a_prefix_deep_or_not(s3: S3Server) -> None:
    keys = ["in/a.png", "in/b/c.png", "in/b/d/e.png", "inner/f.png", "in/ab.png", "in/"]
    s3.put("photos", dict.fromkeys(keys, b"x"))
    store = store_at("s3://photos/in/")

    def names(prefix: str = "", *, deep: bool = True) -> list[str]:
        return [found.name for found in store.list(prefix, deep=deep)]

    assert names() == ["a.png", "ab.png", "b/c.png", "b/d/e.png"]
    assert names(deep=False) == ["a.png", "ab.png"]
    assert names("a") == ["a.png", "ab.png"]
    assert names("b/") == ["b/c.png", "b/d/e.png"]
    assert names("b/", deep=False) == ["b/c.png"]
    assert names("b/d") == ["b/d/e.png"]
    assert names("none/") == []
    assert [found.name for found in store_at("s3://photos").list()] == [
        key for key in sorted(keys) if key != "in/"
    ]


def test_a_listing_is_not_cached(s3: S3Server) -> None:
    store = store_at("s3://photos")
    assert list(store.list()) == []
    s3.put("photos", {"new.png": b"x"})
    assert [found.name for found in store.list()] == ["new.png"]
    assert store.exists("new.png")
    s3.put("photos", {"new.png": b"changed"})
    assert [found.size for found in store.list()] == [7]
    s3.client.delete_object(Bucket="photos", Key="new.png")
    assert not store.exists("new.png")
    assert list(store.list()) == []


def test_a_directory_is_no_object(s3: S3Server) -> None:
    s3.put("photos", {"a/b.png": b"x"})
    assert store_at("s3://photos").info("a") is None
    assert store_at("s3://photos").info("") is None
    assert object_at("s3://photos/a/b.png") == (store_at("s3://photos"), "a/b.png")


def test_of_many_creators_one_succeeds(s3: S3Server) -> None:
    def create(number: int) -> str | None:
        try:
            return store_at("s3://results").create("lock", str(number).encode())
        except StoreConflict:
            return None

    with ThreadPoolExecutor(8) as pool:
        etags = list(pool.map(create, range(8)))
    (winner,) = [number for number, etag in enumerate(etags) if etag]
    assert s3.objects("results") == {"lock": str(winner).encode()}
    assert etags[winner] == hashlib.md5(str(winner).encode()).hexdigest()


def test_an_object_is_replaced_only_as_it_was_known(s3: S3Server) -> None:
    store = store_at("s3://results")
    first = store.create("lock", b"first")
    second = store.replace("lock", b"second", first)
    assert second == hashlib.md5(b"second").hexdigest()
    with pytest.raises(StoreConflict):
        store.replace("lock", b"third", first)
    assert s3.objects("results") == {"lock": b"second"}
    store.remove("lock")
    with pytest.raises((StoreConflict, FileNotFoundError)):
        store.replace("lock", b"third", second)
    assert s3.objects("results") == {}


def test_an_object_over_the_limit_is_not_read(s3: S3Server) -> None:
    s3.put("photos", {"big": b"x" * 1000})
    store = store_at("s3://photos")
    assert store.read("big", max_bytes=1000).data == b"x" * 1000
    with pytest.raises(TooLarge) as refused:
        store.read("big", max_bytes=999)
    assert refused.value.size == 1000


def test_what_fails_says_why(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_at("s3://photos")
    with pytest.raises(FileNotFoundError, match="no such object"):
        store.read("none")
    missing = store_at("s3://missing-bucket")
    for ask in (lambda: list(missing.list()), lambda: missing.read("a"), lambda: missing.write("a", b"")):
        with pytest.raises(FileNotFoundError, match="no such bucket"):
            ask()


def test_a_store_that_is_sent_elsewhere_holds_no_secret(s3: S3Server) -> None:
    store = store_at("s3://photos/a")
    assert list(store.list()) == []
    sent = pickle.dumps(store)
    assert SECRET.encode() not in sent
    assert pickle.loads(sent) == store

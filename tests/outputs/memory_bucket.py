"""A bucket in this process's memory, which can fail, or end the run, at any write."""

from __future__ import annotations

import errno
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typing_extensions import override

from fcn_cli.common import stores
from fcn_cli.common.stores import Content, Store, StoreConflict, StoreObject, store_at
from fcn_cli.outputs.bucket_journal import Grouping
from fcn_cli.outputs.bucket_store import BucketStore
from fcn_cli.outputs.lease import LeaseTimes


class Killed(BaseException):
    """Stands for SIGKILL: nothing can be written any more."""


class MemoryBucket:
    """What S3 does, in memory: whole objects, ETags, conditions, a clock of its own.

    `log` has every write: its verb and path. `before_write` and `after_write` are called around each.
    """

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.log: list[tuple[str, str]] = []
        self.reads = 0
        self.requests = 0
        self.clock = time.time
        self.before_write: Callable[[], None] = lambda: None
        self.after_write: Callable[[], None] = lambda: None
        self._mutex = threading.RLock()

    def list(self, prefix: str, *, deep: bool) -> Iterator[StoreObject]:
        self.requests += 1
        with self._mutex:
            found = [
                self._object(path)
                for path in sorted(self.objects)
                if path.startswith(prefix) and (deep or "/" not in path[len(prefix) :])
            ]
        yield from found

    def info(self, path: str) -> StoreObject | None:
        self.requests += 1
        with self._mutex:
            return self._object(path) if path in self.objects else None

    def read(self, path: str) -> Content:
        self.reads += 1
        self.requests += 1
        with self._mutex:
            if path not in self.objects:
                raise FileNotFoundError(errno.ENOENT, "no such object")
            return Content(self.objects[path][0], self._object(path))

    def write(self, path: str, data: bytes) -> None:
        self._change("put", path, data, lambda: True)

    def create(self, path: str, data: bytes) -> str | None:
        return self._change("create", path, data, lambda: path not in self.objects)

    def replace(self, path: str, data: bytes, etag: str | None) -> str | None:
        return self._change(
            "replace", path, data, lambda: path in self.objects and self._object(path).etag == etag
        )

    def remove(self, path: str) -> None:
        self._change("delete", path, None, lambda: True)

    def _change(self, verb: str, path: str, data: bytes | None, condition: Callable[[], bool]) -> str | None:
        with self._mutex:
            self.requests += 1
            self.before_write()
            if not condition():
                raise StoreConflict
            self.log.append((verb, path))
            if data is None:
                self.objects.pop(path, None)
            else:
                self.objects[path] = bytes(data), int(self.clock() * 1e9)
            self.after_write()
            return self._object(path).etag if data is not None else None

    def _object(self, path: str) -> StoreObject:
        data, written = self.objects[path]
        return StoreObject(path, len(data), hashlib.md5(data).hexdigest(), written)

    def etag(self, path: str) -> str | None:
        """Return an object's ETag."""
        with self._mutex:
            return self._object(path).etag

    def names(self, folder: str) -> dict[str, bytes]:
        """Return the objects below a folder with their bytes."""
        with self._mutex:
            return {
                path.removeprefix(f"{folder}/"): data
                for path, (data, _) in self.objects.items()
                if path.startswith(f"{folder}/")
            }

    def kill_at(self, number: int, *, after: bool) -> None:
        """End the run at a write from now on, before it or after it; 0: never."""
        count = 0

        def struck() -> None:
            nonlocal count
            count += 1
            if number and count >= number:
                raise Killed

        def dead() -> None:
            if number and count >= number and after:
                raise Killed

        self.before_write, self.after_write = (dead, struck) if after else (struck, lambda: None)

    def store(
        self,
        folder: str = "bucket/out",
        times: LeaseTimes | None = None,
        grouping: Grouping | None = None,
    ) -> BucketStore:
        """Return an output directory in this bucket."""
        return BucketStore(store_at(f"s3://{folder}"), times, grouping)

    def copy_to(self, folder: str, directory: Path) -> Path:
        """Write the objects below a folder as local files."""
        for name, data in self.names(folder).items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return directory


def install(monkeypatch: pytest.MonkeyPatch) -> MemoryBucket:
    """Make `s3://` mean this bucket, in this process."""
    bucket = MemoryBucket()

    class InMemory(Store):
        @override
        def list(self, prefix: str = "", *, deep: bool = True) -> Iterator[StoreObject]:
            top = len(self._path("")) + 1
            for found in bucket.list(self._path("") + "/" + prefix, deep=deep):
                yield found._replace(name=found.name[top:])

        @override
        @stores.clear_errors()
        def info(self, name: str = "") -> StoreObject | None:
            found = bucket.info(self._path(name))
            return found._replace(name=name) if found is not None else None

        @override
        @stores.clear_errors()
        def read(self, name: str = "", *, max_bytes: int | None = None) -> Content:
            content = bucket.read(self._path(name))
            stores.check_size(len(content.data), max_bytes)
            return content._replace(object=content.object._replace(name=name))

        @override
        @stores.clear_errors()
        def write(self, name: str, data: bytes) -> None:
            bucket.write(self._path(name), data)

        @override
        @stores.clear_errors()
        def create(self, name: str, data: bytes) -> str | None:
            return bucket.create(self._path(name), data)

        @override
        @stores.clear_errors()
        def replace(self, name: str, data: bytes, etag: str | None) -> str | None:
            return bucket.replace(self._path(name), data, etag)

        @override
        @stores.clear_errors()
        def remove(self, name: str) -> None:
            bucket.remove(self._path(name))

    monkeypatch.setitem(stores._CLASSES, "s3", InMemory)
    return bucket

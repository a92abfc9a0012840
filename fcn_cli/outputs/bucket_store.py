"""An output directory in an object store."""

from __future__ import annotations

import contextlib
import errno
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from typing_extensions import override

from ..common import files, store_urls
from ..common.errors import OutputLost, RequestError
from ..common.output_layout import JOURNAL_FILE, JOURNAL_PARTS
from ..common.shard import Shard, shards_with
from ..common.stores import Store, StoreConflict, StoreObject, store_at
from .bucket_journal import BucketJournals, Grouping
from .lease import Lease, LeaseTimes
from .lock import Claim, Holder
from .output_store import LocalStore, OutputStore

_MAX_KEY_BYTES = 1024
"""As in S3 and Google Cloud Storage."""

_SCHEMES = ("s3", "s3a", "gs", "gcs")
"""Stores that publish whole objects only, and can create one on the condition that there is none."""


@dataclass(frozen=True, slots=True)
class _Object:
    """A file of an output directory, for reading; see `ReadableFile`."""

    objects: Store
    name: str

    def __str__(self) -> str:
        return f"{self.objects}/{self.name}"

    def read_bytes(self) -> bytes:
        return self.objects.read(self.name).data

    def read_small(self, limit: int) -> bytes:
        return self.objects.read(self.name, max_bytes=limit).data


class BucketStore(OutputStore):
    """An output directory whose files are objects; see `OutputStore`.

    Objects are written whole from memory: a put that is acknowledged is durable, and no part of an object can
    ever be read. While a `Lease` of this store is held, everything that writes checks it first.

    Parameters
    ----------
    objects
        The objects below the URL.
    times, grouping
        Of its locks and its journals.
    """

    poll_seconds = 1.0
    passing_seconds = 60.0
    is_new = False

    def __init__(
        self, objects: Store, times: LeaseTimes | None = None, grouping: Grouping | None = None
    ) -> None:
        self.objects = objects
        self._times = times or LeaseTimes()
        self._grouping = grouping or Grouping()
        self._leases: list[Lease] = []
        self._sizes: dict[str, dict[str, int | None]] = {}

    def __str__(self) -> str:
        return str(self.objects)

    @override
    def __truediv__(self, name: str) -> _Object:
        return _Object(self.objects, name)

    @property
    @override
    def lock_note(self) -> str:
        """When a killed run's lock passes."""
        return f" (a run that was killed elsewhere holds it for {self._times.expiry / 60:g} more minutes)"

    @override
    def make(self) -> None:
        """Do nothing: a directory is where its objects are."""

    @override
    def remove_empty(self) -> None:
        """Do nothing: a directory is where its objects are."""

    @override
    def write_whole(
        self,
        name: str,
        write: Callable[[BinaryIO], None],
        permissions: files.Permissions | None = None,
    ) -> int:
        """Write an object; it is durable at once."""
        key = store_urls.split(self.objects.url_of(name)).key
        if len(key.encode("utf-8", "replace")) > _MAX_KEY_BYTES:
            raise OSError(errno.ENAMETOOLONG, f"a key has at most {_MAX_KEY_BYTES} bytes")
        write(stream := io.BytesIO())
        self.write_bytes(name, data := stream.getvalue())
        return len(data)

    @override
    def write_text(self, name: str, text: str) -> None:
        self.write_bytes(name, files.encoded(text))

    def write_bytes(self, name: str, data: bytes) -> None:
        """Create or replace an object."""
        self._check_leases()
        self.objects.write(name, data)
        self._note_size(name, len(data))

    def write_if(self, name: str, data: bytes, etag: str | None) -> str | None:
        """Create an object (`etag` None), or replace the one with this ETag; return the new one's ETag.

        Raises
        ------
        OutputLost
            Another process has written it.
        """
        self._check_leases()
        try:
            if etag is None:
                return self.objects.create(name, data)
            return self.objects.replace(name, data, etag)
        except StoreConflict:
            # Or the answer to the first attempt was lost, and the driver asked again.
            with contextlib.suppress(FileNotFoundError):
                found = self.objects.read(name)
                if found.data == data:
                    return found.object.etag
        raise OutputLost(
            f"{self.objects}/{name}: another run has written it; this run no longer holds the directory"
        )

    @override
    def sync(self, names: Iterable[str]) -> None:
        """Do nothing: what is written is durable."""

    @override
    def remove(self, name: str) -> None:
        self._check_leases()
        self.objects.remove(name)
        self._note_size(name, None)

    @override
    def remove_directory(self, name: str) -> None:
        """Do nothing: a directory is where its objects are."""

    @override
    def has_size(self, name: str, size: int) -> bool:
        """Say whether an object exists and has a size; the first question lists all of its directory."""
        directory, slash, _ = name.partition("/")
        if not slash:
            return name in {found.name for found in self.list(name, deep=False) if found.size == size}
        if directory not in self._sizes:
            self._sizes[directory] = {found.name: found.size for found in self.list(f"{directory}/")}
        return self._sizes[directory].get(name) == size

    @override
    def top_names(self) -> list[str]:
        return [found.name for found in self.list(deep=False)]

    @override
    def contents(self) -> Iterator[str]:
        """Yield the first part of each object's name."""
        return (found.name.partition("/")[0] for found in self.list())

    def list(self, prefix: str = "", *, deep: bool = True) -> Iterator[StoreObject]:
        """Yield objects as `Store.list` does; of a missing bucket none.

        Raises
        ------
        OutputLost
            They cannot be listed.
        """
        try:
            yield from self.objects.list(prefix, deep=deep)
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputLost(f"{self.objects}: cannot be listed ({error.strerror or error})") from None

    @override
    def modified(self, name: str) -> float:
        found = self.objects.info(name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such object")
        return (found.mtime_ns or 0) / 1e9

    @override
    def journals(self, shard: Shard | None) -> BucketJournals:
        """Return local copies of the journals, whose own one is written in parts."""
        return BucketJournals(self, shard, self._grouping)

    @override
    def journal_shards(self) -> set[Shard]:
        """Return the shards that have a journal, or parts of one that a killed run has left."""
        names = {found.name.partition("/")[0] for found in self.list(JOURNAL_FILE.partition(".")[0])}
        return {shard for name in (JOURNAL_FILE, JOURNAL_PARTS) for shard, _ in shards_with(names, name)}

    @override
    def lock(self, claim: Claim) -> Lease:
        self._leases.append(lease := Lease(self.objects, claim, self._times))
        return lease

    @override
    def holder(self) -> Holder | None:
        return Lease(self.objects, Claim(), self._times).holder()

    def _check_leases(self) -> None:
        for lease in [*self._leases]:
            lease.check()

    def _note_size(self, name: str, size: int | None) -> None:
        self._sizes.get(name.partition("/")[0], {})[name] = size


def open_store(directory: str) -> OutputStore:
    """Return an output directory, which need not exist.

    Parameters
    ----------
    directory
        A path, or the URL of a place in an object store: ``s3://bucket/results``.

    Raises
    ------
    RequestError
        It is a URL of something that cannot be written, or holds a password; or there is no driver for it.
    """
    directory = store_urls.local_path(directory)
    if not store_urls.is_url(directory):
        return LocalStore(Path(directory))
    scheme = store_urls.split(directory).scheme
    if store_urls.is_web(directory):
        raise RequestError(
            f"--output {directory}: {scheme}:// is for input only; give s3://, gs:// or a directory"
        )
    if scheme == "memory":
        raise RequestError(
            f"--output {directory}: it is lost when the process ends; give s3://, gs:// or a directory"
        )
    if scheme not in _SCHEMES:
        raise RequestError(
            f"--output {directory}: cannot write to {scheme}://; give s3://, gs:// or a directory"
        )
    objects = store_at(directory)
    objects.check_driver()
    return BucketStore(objects)

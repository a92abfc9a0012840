"""Output names: find collisions, decide which image keeps a name, and assign images to shards."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from ..common.shard import Shard
from .discovery import Source


@dataclass(frozen=True, slots=True)
class Collision:
    """An image whose output name is taken, and the image that owns the name."""

    refused: Source
    owner: Source

    @property
    def text(self) -> str:
        """A message for users, without the remedy."""
        owner, name, other = self.owner.given, self.refused.output, self.owner.output
        if folded(name) == folded(other):
            return f"{owner} and {self.refused.given} would both be written as {name}{self._likeness}"
        return (
            f"{owner} and {self.refused.given} would both be written as {min(name, other, key=len)}, "
            "one of them as a directory"
        )

    @property
    def _likeness(self) -> str:
        """In what the two names differ, where people or file systems take them for one; else empty."""
        name, other = self.refused.image, self.owner.image
        if self.is_of_suffixes:
            return ""
        if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", other):
            return " (their names look alike: they differ only in Unicode form, NFC or NFD)"
        if name.casefold() == other.casefold():
            return " (their names differ only in upper and lower case)"
        return " (their names differ only in upper and lower case and in Unicode form, NFC or NFD)"

    @property
    def is_of_suffixes(self) -> bool:
        """Whether the two images' own names differ, so that keeping their suffixes keeps them apart."""
        return folded(self.refused.image) != folded(self.owner.image)

    @property
    def way_out(self) -> str:
        """How to keep the two apart in a new output directory."""
        if self.is_of_suffixes:
            return "give --keep-extension to keep them apart"
        return "rename one, or segment them into two output directories"

    @property
    def way_out_later(self) -> str:
        """How to keep the two apart in an output directory that already has records."""
        if self.is_of_suffixes:
            return "rename one, or use another --output with --keep-extension"
        return self.way_out


def folded(name: str) -> str:
    """Return a name as a case-insensitive, normalising file system compares it (NFC, casefolded)."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def find(
    sources: Iterable[Source], owns: Callable[[Source], bool] = lambda _source: False
) -> list[Collision]:
    """Return the images whose output name another one owns, or whose output path is a directory of another's.

    `owns` says whether an image owns its name from an earlier run. Of two new images, the first in byte order
    of `image` gets the name. Images without an output name are ignored.
    """
    named = [source for source in sources if source.output]
    if not _may_collide(named):
        return []
    owners: dict[str, Source] = {}
    directories: dict[str, Source] = {}
    collisions = []
    for source in sorted(named, key=lambda source: (not owns(source), os.fsencode(source.image))):
        name = folded(source.output)
        parents = [str(parent) for parent in PurePosixPath(name).parents][:-1]
        owner = owners.get(name) or directories.get(name)
        owner = owner or next((owners[parent] for parent in parents if parent in owners), None)
        if owner is not None:
            collisions.append(Collision(source, owner))
            continue
        owners[name] = source
        for parent in parents:
            directories.setdefault(parent, source)
    return collisions


def _may_collide(sources: list[Source]) -> bool:
    """Return whether two names are equal or one is a directory of another: a fast check, usually False."""
    names = {folded(source.output) for source in sources}
    if len(names) < len(sources):
        return True
    directories: set[str] = set()
    for name in names:
        parent = name.rpartition("/")[0]
        while parent and parent not in directories:
            directories.add(parent)
            parent = parent.rpartition("/")[0]
    return not names.isdisjoint(directories)


def is_in_shard(source: Source, shard: Shard) -> bool:
    """Say whether an image belongs to a shard.

    That depends on the image's output name and the number of shards only. Images that would share a file,
    also on a file system that ignores case, belong to one shard. What has no output name counts by its own.
    """
    name = folded(source.output or source.image)
    # Any bytes can be in a name, and each has to give the same shard on every system.
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest) % shard.count == shard.index - 1

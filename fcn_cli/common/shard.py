"""A shard: one of several processes that share the images of one output directory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .limits import MOST_SHARDS
from .output_layout import LOCK_FILE

_LABEL = re.compile(r"([1-9][0-9]*)-of-([1-9][0-9]*)")


@dataclass(frozen=True, slots=True)
class Shard:
    """Shard `index` of `count`; `index` counts from 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def all(self) -> Iterator[Shard]:
        """Yield all shards of this number of shards."""
        return (Shard(index, self.count) for index in range(1, self.count + 1))


def shard_file(name: str, shard: Shard | None) -> str:
    """Return the name of a shard's own file: ``manifest.jsonl`` → ``manifest.2-of-4.jsonl``.

    Without a shard the name is that of the output directory's file.
    """
    if shard is None:
        return name
    label = f"{shard.index}-of-{shard.count}"
    if name == LOCK_FILE:
        return f"{name}.{label}"
    stem, _, suffix = name.rpartition(".")
    return f"{stem}.{label}.{suffix}"


def shards_with(names: Iterable[str], name: str) -> list[tuple[Shard, str]]:
    """Return the shards that have their own file of a name among the `names` in a directory, in order."""
    found = []
    for one in names:
        if (label := _LABEL.search(one)) is not None:
            shard = Shard(int(label[1]), int(label[2]))
            if shard.index <= shard.count <= MOST_SHARDS and one == shard_file(name, shard):
                found.append((shard, one))
    return sorted(found, key=lambda entry: (entry[0].count, entry[0].index))


def shard_files(output: Path, name: str) -> list[tuple[Shard, Path]]:
    """Return the shards that have their own file of a name in a local directory, and the files, in order.

    Raises
    ------
    OSError
        The directory cannot be listed; a missing one has no files.
    """
    try:
        names = os.listdir(output)
    except FileNotFoundError:
        return []
    return [(shard, output / one) for shard, one in shards_with(names, name)]

"""The objects that a journal in an object store is made of: one, and parts that follow it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..common.output_layout import JOURNAL_FILE, JOURNAL_PARTS
from ..common.shard import shard_file, shards_with

if TYPE_CHECKING:
    from .object_store import ObjectStore

_PART = re.compile(r"(\d{8})(?:-(\d{8}))?\.jsonl")
_MAX_ATTEMPTS = 20
_READS_AT_ONCE = 16


class Part(NamedTuple):
    """An object that holds the parts from `first` to `last`; an empty one says that they are in the journal.

    `begin` is where its lines begin in the whole journal, in bytes, and `level` how often it was folded;
    both are known for the parts of this run; those of earlier ones have level -1.
    """

    name: str
    first: int
    last: int
    size: int
    begin: int = 0
    level: int = -1


def fetch(store: ObjectStore, directory: Path) -> dict[str, list[Part]]:
    """Copy all journals into a local directory; return the parts of each.

    It needs no lock: when another process puts parts together meanwhile, this begins again.
    """
    attempts = 0
    while True:
        found, attempts = _find(store), attempts + 1
        try:
            for journal, (names, _) in found.items():
                _copy(store, names, directory / journal)
        except FileNotFoundError:
            if attempts == _MAX_ATTEMPTS:
                raise
            for path in directory.iterdir():
                path.unlink()
            continue
        return {journal: parts for journal, (_, parts) in found.items()}


def _copy(store: ObjectStore, names: Sequence[str], path: Path) -> None:
    if not names:
        return
    with path.open("wb") as copy, ThreadPoolExecutor(_READS_AT_ONCE, "fcn-read") as threads:
        for data in threads.map(lambda name: store.objects.read(name).data, names):
            copy.write(data)
            if data and not data.endswith(b"\n"):
                # Somebody else cut it off: one damaged line, not two.
                copy.write(b"\n")


def _find(store: ObjectStore) -> dict[str, tuple[list[str], list[Part]]]:
    """Return for each journal the objects to read, in order, and all of its parts."""
    listed = {found.name: found.size or 0 for found in store.list(JOURNAL_FILE.partition(".")[0])}
    folders = {name.partition("/")[0] for name in listed if "/" in name}
    journals = {None, *(shard for shard, _ in shards_with(listed, JOURNAL_FILE))}
    journals |= {shard for shard, _ in shards_with(folders, JOURNAL_PARTS)}
    result = {}
    for shard in journals:
        name = shard_file(JOURNAL_FILE, shard)
        parts = _parts_among(listed, shard_file(JOURNAL_PARTS, shard))
        names = [name] if name in listed else []
        names += [part.name for part in without_superseded(parts) if part.size]
        if parts or names:
            result[name] = names, parts
    return result


def _parts_among(sizes: dict[str, int], folder: str) -> list[Part]:
    parts = []
    for name, size in sizes.items():
        below, _, number = name.rpartition("/")
        if below == folder and (match := _PART.fullmatch(number)) is not None:
            parts.append(Part(name, int(match[1]), int(match[2] or match[1]), size))
    return parts


def without_superseded(parts: Iterable[Part]) -> list[Part]:
    """Return the parts that no wider one holds, in order."""
    counting: list[Part] = []
    for part in sorted(parts, key=lambda part: (part.first, -part.last)):
        if not counting or part.last > counting[-1].last:
            counting.append(part)
    return counting


def remove_journal(store: ObjectStore, name: str) -> None:
    """Delete a journal so that what is left after a kill is what came last: that says the same again."""
    listed = {found.name: found.size or 0 for found in store.list(name.removesuffix(".jsonl"))}
    parts = _parts_among(listed, name.removesuffix(".jsonl") + ".parts")
    counting = without_superseded(parts)
    for dead in (part for part in parts if part not in counting):
        store.remove(dead.name)
    store.remove(name)
    for part in counting:
        store.remove(part.name)

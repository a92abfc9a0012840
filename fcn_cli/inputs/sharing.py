"""Divides photos among shards."""

from __future__ import annotations

import hashlib

from ..common.shard import Shard
from .collisions import folded
from .discovery import Source


def is_in_share(source: Source, shard: Shard) -> bool:
    """Say whether a photo belongs to a shard.

    That depends on the photo's output name and the number of shards only. Photos that would share a file,
    also on a file system that ignores case, belong to one shard. What has no output name counts by its own.
    """
    name = folded(source.output or source.image)
    # Any bytes can be in a name, and each has to give the same share on every system.
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest) % shard.count == shard.index - 1

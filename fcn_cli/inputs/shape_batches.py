"""Decoded photos into batches of one shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .decode_worker import DecodedPhoto

LOOK_AHEAD_BYTES = 256 << 20
"""How many bytes of pixels may wait for others of their shape."""


def group_by_shape(
    items: Iterable[DecodedPhoto | None], batch_size: int
) -> Iterator[list[DecodedPhoto] | DecodedPhoto | None]:
    """Group items whose pixels have one shape; what cannot be grouped passes through.

    A group is given out when it is full, or when more than ``4 * batch_size`` photos or `LOOK_AHEAD_BYTES`
    wait (then the oldest photo's group), so what a batch holds depends on the order of the photos only.

    Yields
    ------
    list of DecodedPhoto, DecodedPhoto or None
        A batch of 1 to `batch_size` items in input order; a failed item; None as it came.
    """
    waiting: dict[tuple[int, ...], list[DecodedPhoto]] = {}
    count = size = 0
    for item in items:
        if item is None or item.pixels is None:
            yield item
            continue
        group = waiting.setdefault(item.pixels.shape, [])
        group.append(item)
        count += 1
        size += item.pixels.nbytes
        full = item.pixels.shape if len(group) == batch_size else None
        while full or count > 4 * batch_size or size > LOOK_AHEAD_BYTES:
            # A group enters the dict with its oldest photo, so the first group is the oldest.
            batch = waiting.pop(full or next(iter(waiting)))
            full = None
            count -= len(batch)
            size -= sum(one.pixels.nbytes for one in batch if one.pixels is not None)
            yield batch
    yield from waiting.values()

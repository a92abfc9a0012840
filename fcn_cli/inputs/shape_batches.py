"""Group decoded photos into batches of one shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .decoded_photo import DecodedPhoto

LOOK_AHEAD_BYTES = 256 << 20
"""How many bytes of pixels may wait for others of their shape."""


def group_by_shape(
    photos: Iterable[DecodedPhoto | None], batch_size: int
) -> Iterator[list[DecodedPhoto] | DecodedPhoto | None]:
    """Group photos whose pixels have one shape; failed photos and None pass through.

    A group is yielded when it is full. When more than ``4 * batch_size`` photos or `LOOK_AHEAD_BYTES` wait,
    the oldest photo's group is. So the contents of a batch depend on the order of the photos only.

    Yields
    ------
    list of DecodedPhoto, DecodedPhoto or None
        A batch of 1 to `batch_size` photos in input order; a failed photo; None, passed through.
    """
    waiting: dict[tuple[int, ...], list[DecodedPhoto]] = {}
    count = size = 0
    for photo in photos:
        if photo is None or photo.pixels is None:
            yield photo
            continue
        group = waiting.setdefault(photo.pixels.shape, [])
        group.append(photo)
        count += 1
        size += photo.nbytes
        full = photo.pixels.shape if len(group) == batch_size else None
        while full or count > 4 * batch_size or size > LOOK_AHEAD_BYTES:
            # A group enters the dict with its oldest photo, so the first group is the oldest.
            batch = waiting.pop(full or next(iter(waiting)))
            full = None
            count -= len(batch)
            size -= sum(member.nbytes for member in batch)
            yield batch
    yield from waiting.values()

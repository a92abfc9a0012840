"""Where the records of a directory are: the last one of each image, and which image owns which file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, KeysView
from typing import BinaryIO

from ..common.output_layout import kind_of
from ..inputs.collisions import folded
from .journal_files import MAX_LINE_BYTES
from .record import Record

_OFFSET_BITS = 48


class RecordIndex:
    """Where the last record of each image is, and which image owns which output file.

    An image leaves the index when its output file is written for another image. Names of output files are
    compared as a case-insensitive file system does.

    A night's run has hundreds of thousands of records. So this class keeps their places in the files, and
    64-bit hashes of output files. (Two of a million photos have an equal one with a probability of 1 in 10
    million; then the second photo is refused.)
    """

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._owners: dict[int, str] = {}
        self.kinds: set[str] = set()
        self._gone: dict[str, tuple[str, ...]] = {}
        self._bare: set[str] = set()
        self._streams: list[BinaryIO] = []
        self.read_count = 0

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Record]:
        return (self._read(self._places[image]) for image in sorted(self._places))

    def add_file(self, stream: BinaryIO) -> int:
        """Add a journal, open for reading, which the index closes; return the number to `remember` it by."""
        self._streams.append(stream)
        return len(self._streams) - 1

    def replace_file(self, number: int, stream: BinaryIO) -> None:
        """Read a journal through another stream from now on."""
        self._streams[number].close()
        self._streams[number] = stream

    def close(self) -> None:
        """Close the files; no record can be read any more."""
        for stream in self._streams:
            stream.close()

    def images(self) -> KeysView[str]:
        """Return the names of all images."""
        return self._places.keys()

    def without_outputs(self) -> list[Record]:
        """Return the records that name no output file: those of failures."""
        return [self._read(self._places[image]) for image in sorted(self._bare)]

    def lines(self, *, in_order: bool) -> Iterator[tuple[str, bytes]]:
        """Yield each image and its last line, with its line end, in order of images or as they came."""
        images = sorted(self._places) if in_order else list(self._places)
        return ((image, self._line(self._places[image])) for image in images)

    def get(self, image: str) -> Record | None:
        """Return the last record of an image, or None when there is none or the photo was pruned."""
        place = self._places.get(image)
        return self._read(place) if place is not None else None

    def owner(self, output: str) -> str | None:
        """Return the image whose record names this output file."""
        return self._owners.get(hash(folded(output))) if kind_of(output) in self.kinds else None

    def orphans(self) -> list[str]:
        """Return output files of pruned photos that no other record names."""
        return [name for names in self._gone.values() for name in names if self.owner(name) is None]

    def remember(self, record: Record, file: int, offset: int) -> None:
        """Add a record, whose line begins at an offset of a file."""
        image = record.image
        if record.status == "gone":
            self.forget(image)
            self._gone[image] = record.outputs
            return
        keys = [hash(folded(output)) for output in record.outputs]
        for key in keys:
            previous = self._owners.get(key)
            if previous is not None and previous != image:
                self.forget(previous)
        self.forget(image)
        self._gone.pop(image, None)
        self._places[image] = file << _OFFSET_BITS | offset
        if not keys:
            self._bare.add(image)
        for output, key in zip(record.outputs, keys, strict=True):
            self._owners[key] = image
            self.kinds.add(kind_of(output))

    def forget(self, image: str) -> None:
        """Remove an image."""
        place = self._places.pop(image, None)
        self._bare.discard(image)
        if place is not None:
            for output in self._read(place).outputs:
                key = hash(folded(output))
                if self._owners.get(key) == image:
                    del self._owners[key]

    def move_to(self, stream: BinaryIO, offsets: Iterable[tuple[str, int]]) -> None:
        """Read each image's record from a new file from now on; forget the files of pruned photos."""
        self._places = dict(offsets)
        self._streams = [stream]
        self._gone.clear()

    def _read(self, place: int) -> Record:
        return Record.from_line(self._line(place))

    def _line(self, place: int) -> bytes:
        self.read_count += 1
        stream = self._streams[place >> _OFFSET_BITS]
        stream.seek(place & ((1 << _OFFSET_BITS) - 1))
        return stream.readline(MAX_LINE_BYTES)

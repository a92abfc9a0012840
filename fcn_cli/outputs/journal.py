"""The journals of an output directory: ``manifest.jsonl``, and one for each shard that is not merged yet.

A journal has a record on each line. The journals are read in one order: ``manifest.jsonl`` first, then those
of shards; the last record of an image in that order counts. No clock decides, because times of several
machines do not compare. It holds:

- The images of one number of shards are divided, so that only one shard's journal grows for an image.
- While journals of shards exist, nothing is appended to ``manifest.jsonl``: a run without ``--shard`` moves
  their records there before it begins, and so does the first shard of another number of shards.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..common import files, resources
from ..common.errors import OutputLost, RequestError
from ..common.output_layout import JOURNAL_FILE, output_type_of
from ..common.shard import Shard, shard_file, shard_files
from ..inputs.collisions import folded
from .json_text import from_base64, to_line, usable_name
from .output_store import OutputStore, as_store
from .record import Record
from .settings import require_output_directory

_MAX_LINE_BYTES = 1 << 20
"""Far more than any record has."""
# The first fields of a line, of which the rest may be damaged.
_IMAGE = re.compile(rb'\{"image": ("(?:[^"\\]|\\.)*"), (?:"image_bytes": "([A-Za-z0-9+/=]*)", )?"source"')
_OFFSET_BITS = 48


def journal_path(output: Path, shard: Shard | None = None) -> Path:
    """Return the path of the journal that a run appends to."""
    return output / shard_file(JOURNAL_FILE, shard)


def open_for_reading(path: Path) -> BinaryIO:
    """Open a journal; `files.UnfitFile`, an OSError, where it is a link or no file."""
    return open(path, "rb", opener=files.open_regular)


def open_for_appending(path: Path) -> BinaryIO:
    """Open a journal at its end, without a buffer; a new one's name survives a power cut."""
    new = not os.path.lexists(path)
    stream: BinaryIO = open(path, "ab", buffering=0, opener=files.open_regular)  # noqa: SIM115 - returned
    if new:
        files.sync_directories([path.parent])
    return stream


def whole_lines(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield each line of a journal from where its stream is, and where the line ends in the file.

    A torn last line is left out. Of a line with more than `_MAX_LINE_BYTES` the beginning comes: it can tell
    its image, and ends so that the line is damaged.
    """
    end = stream.tell()
    while line := stream.readline(_MAX_LINE_BYTES):
        end += len(line)
        if not line.endswith(b"\n"):
            rest = line
            while len(rest) == _MAX_LINE_BYTES and not rest.endswith(b"\n"):
                rest = stream.readline(_MAX_LINE_BYTES)
                end += len(rest)
            if not rest.endswith(b"\n"):
                return
            line += b"\0"
        yield line, end


def _open_all(output: Path) -> list[BinaryIO]:
    """Open all journals of a directory for reading, in the order in which they count; raises OSError.

    The caller needs no lock: when other processes merge the journals meanwhile, they are opened again.
    """
    while True:
        streams: list[BinaryIO] = []
        with contextlib.ExitStack() as undo:
            for path in _paths(output):
                with contextlib.suppress(FileNotFoundError):
                    streams.append(undo.enter_context(open_for_reading(path)))
            opened = [os.fstat(stream.fileno()) for stream in streams]
            if list(map(_identity, opened)) == list(map(_identity, _on_disk(output))):
                undo.pop_all()
                return streams


def _paths(output: Path) -> list[Path]:
    return [journal_path(output), *(path for _, path in shard_files(output, JOURNAL_FILE))]


def _on_disk(output: Path) -> list[os.stat_result]:
    found = []
    for path in _paths(output):
        with contextlib.suppress(FileNotFoundError):
            found.append(path.lstat())
    return found


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _image_of_damaged(line: bytes) -> str | None:
    """Return the image that a damaged line is of, or None when that cannot be told."""
    named = _IMAGE.match(line)
    with contextlib.suppress(ValueError):
        if named is not None:
            return usable_name(json.loads(named[1]) if named[2] is None else from_base64(named[2].decode()))
    return None


class _Places:
    """Name → the place of the last line that has it; the names themselves are not kept.

    What was there at the start takes 16 bytes a name: sorted hashes, and places beside them. Later ones are
    in a dictionary. (Two of three million names have the same 64-bit hash with a probability of less than 1
    in a million.)
    """

    def __init__(self) -> None:
        self._read = array("q"), array("q")
        self.places: NDArray[np.int64] = np.empty(0, np.int64)
        self._later: dict[int, int] = {}
        self._set(self.places, self.places)

    def note(self, name: str, place: int) -> None:
        """Add a name while the journals are read, before `settle`."""
        keys, places = self._read
        keys.append(hash(name))
        places.append(place)

    def settle(self) -> NDArray[np.int64]:
        """Sort what was read; return the places of lines which a later one with the same name supersedes."""
        keys, places = (np.frombuffer(one, np.int64) for one in self._read)
        # Stable, so that each name's lines stay in order.
        order = np.argsort(keys, kind="stable")
        keys, places = keys[order], places[order]
        is_last = np.ones(len(order), np.bool_)
        is_last[:-1] = keys[1:] != keys[:-1]
        # A line may have a name twice.
        is_old = ~is_last
        is_old[:-1] &= places[1:] != places[:-1]
        self._read = array("q"), array("q")
        self._set(keys[is_last], places[is_last])
        return places[is_old]

    def drop(self, places: NDArray[np.int64]) -> None:
        """Forget the names whose last line is among these, after `settle`."""
        kept = np.isin(self.places, places, invert=True)
        self._set(self._keys[kept], self.places[kept])

    def _set(self, keys: NDArray[np.int64], places: NDArray[np.int64]) -> None:
        self._keys, self.places = keys, places
        # Hashes are spread evenly, so the first bits of one say nearly where it is.
        bits = max(1, len(keys).bit_length() - 2)
        self._shift, self._middle = 64 - bits, 1 << bits - 1
        edges = np.arange(-self._middle, self._middle, dtype=np.int64) << self._shift
        starts = np.append(np.searchsorted(keys, edges), len(keys))
        self._sorted, self._beside, self._starts = keys.data, places.data, starts.data

    def find(self, name: str) -> int:
        """Return the place of the last line that has a name, or -1."""
        key = hash(name)
        place = self._later.get(key)
        if place is not None:
            return place
        first = (key >> self._shift) + self._middle
        end = self._starts[first + 1]
        at = bisect_left(self._sorted, key, self._starts[first], end)
        return self._beside[at] if at < end and self._sorted[at] == key else -1

    def add(self, name: str, place: int) -> None:
        """Add a name after `settle`."""
        self._later[hash(name)] = place

    def all(self, but: Iterable[str] = ()) -> NDArray[np.int64]:
        """Return the places of all names `but` these, superseded ones too."""
        without = {*map(hash, but)}
        later = [place for key, place in self._later.items() if key not in without]
        keys = np.fromiter(without, np.int64, len(without))
        early = self.places[np.isin(self._keys, keys, invert=True)]
        return np.concatenate([early, np.array(later, np.int64)])


@dataclass(slots=True)
class _Extent:
    """How much of a journal is whole: its bytes and lines."""

    whole_bytes: int = 0
    lines: int = 0


class RecordIndex:
    """Where the records that count are, in journals that are open; each is read when it is asked for.

    A record counts until a later line is about the same image, or names one of its files: then another image
    has taken the file over. Names of files are compared as a case-insensitive file system does. Places in
    open files are a snapshot: lines that others append later, and files that take a journal's name, change
    nothing.

    A line that cannot be read costs the image that its first field names. Where not even that can be read,
    the records before it stand: `unknown` of the `damaged` lines are such ones.

    While one thread adds records, others may ask it for a record by image and for the owner of a file.

    Parameters
    ----------
    streams
        The journals in the order in which they count; the index closes them.
    """

    def __init__(self, streams: Iterable[BinaryIO] = ()) -> None:
        self._streams = list(streams)
        self.extents = [_Extent() for _ in self._streams]
        self.damaged = self.unknown = 0
        self.types: set[str] = set()
        self._images, self._files = _Places(), _Places()
        # Lines that say that an image is gone, that cannot be read, and of images without files.
        self._gone, self._lost, self._bare = array("q"), array("q"), array("q")
        self._superseded: set[int] = set()
        self._reading = threading.Lock()
        self._read_all()
        self._settle()
        self._count = len(self._images.places)

    @resources.without_cycle_collection()
    def _read_all(self) -> None:
        for number, (stream, extent) in enumerate(zip(self._streams, self.extents, strict=True)):
            for line, end in whole_lines(stream):
                self._note(line, number << _OFFSET_BITS | extent.whole_bytes)
                extent.whole_bytes = end
                extent.lines += 1

    def _note(self, line: bytes, place: int) -> None:
        try:
            record = Record.from_line(line)
        except ValueError:
            self.damaged += 1
            self._lost.append(place)
            image = _image_of_damaged(line)
            if image is None:
                self.unknown += 1
            else:
                self._images.note(image, place)
            return
        self._images.note(record.image, place)
        if record.status == "gone":
            self._gone.append(place)
            return
        if not record.outputs:
            self._bare.append(place)
        for name in record.outputs:
            self.types.add(output_type_of(name))
            self._files.note(folded(name), place)

    def _settle(self) -> None:
        """Keep of what was read only what counts."""
        old = self._images.settle()
        gone = np.setdiff1d(np.frombuffer(self._gone, np.int64), old)
        lost = np.frombuffer(self._lost, np.int64)
        superseded = np.concatenate([old, self._files.settle(), gone, lost])
        self._images.drop(superseded)
        self._files.drop(superseded)
        bare = np.setdiff1d(np.frombuffer(self._bare, np.int64), superseded)
        self._gone, self._bare, self._lost = array("q", gone), array("q", bare), array("q")

    def __len__(self) -> int:
        return self._count

    def __contains__(self, image: str) -> bool:
        return self._counts(self._images.find(image))

    def __iter__(self) -> Iterator[Record]:
        """Yield the records in the order of the journals."""
        # Numbers of Python one by one: all of them would take more memory than the index.
        return map(self._record, self._all().data)

    def by_image(self) -> Iterator[Record]:
        """Yield the records sorted by image."""
        # Nothing is read before the first one is asked for.
        yield from map(self._record, self._all_by_image())

    def lines(self, *, by_image: bool) -> Iterator[bytes]:
        """Yield the lines of the records, sorted by image or in the order of the journals."""
        return map(self._line, self._all_by_image() if by_image else self._all().data)

    def sample(self, count: int) -> Iterator[Record]:
        """Yield about so many records, evenly among all."""
        return map(self._record, self._all()[:: max(1, len(self) // count)].tolist())

    def beside(self, images: Iterable[str], most: int) -> tuple[list[Record], bool]:
        """Return records of other images than these, at most so many, and whether there are more."""
        places = self._counting(self._images.all(but=images))
        return list(map(self._record, places[:most].tolist())), len(places) > most

    def without_files(self) -> list[Record]:
        """Return the records that name no output file, which are those of failures, sorted by image."""
        records = [self._record(place) for place in self._bare if self._counts(place)]
        return sorted(records, key=lambda record: record.image)

    def get(self, image: str) -> Record | None:
        """Return the record of an image; None when there is none, or the image was pruned."""
        place = self._images.find(image)
        record = self._record(place) if self._counts(place) else None
        return record if record is not None and record.image == image else None

    def owner(self, output: str) -> str | None:
        """Return the image whose record names this output file."""
        place = self._files.find(folded(output)) if output_type_of(output) in self.types else -1
        return self._record(place).image if self._counts(place) else None

    def take_orphans(self) -> list[str]:
        """Return, only once, the output files of pruned images that no other record names."""
        places, self._gone = self._gone, array("q")
        named = [name for place in places for name in self._record(place).outputs]
        return [name for name in named if self.owner(name) is None]

    def add_journal(self, stream: BinaryIO) -> int:
        """Add a journal of which nothing is read; return its number."""
        self._streams.append(stream)
        self.extents.append(_Extent())
        return len(self._streams) - 1

    def add(self, record: Record, number: int, line_bytes: int) -> None:
        """Add a record whose line of so many bytes was appended to a journal."""
        extent = self.extents[number]
        place = number << _OFFSET_BITS | extent.whole_bytes
        extent.whole_bytes += line_bytes
        extent.lines += 1
        self._supersede(self._images.find(record.image))
        self._images.add(record.image, place)
        self._count += 1
        if record.status == "gone":
            self._supersede(place)
            return
        if not record.outputs:
            self._bare.append(place)
        self.types.update(map(output_type_of, record.outputs))
        for name in {*map(folded, record.outputs)}:
            self._supersede(self._files.find(name))
            self._files.add(name, place)

    def close(self) -> None:
        """Close the journals; no record can be read any more."""
        for stream in self._streams:
            stream.close()

    def _supersede(self, place: int) -> None:
        if self._counts(place):
            self._superseded.add(place)
            self._count -= 1

    def _counts(self, place: int) -> bool:
        return place >= 0 and place not in self._superseded

    def _counting(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the places of records that count, in the order of the journals."""
        superseded = np.fromiter(self._superseded, np.int64, len(self._superseded))
        return np.setdiff1d(places, superseded)

    def _all(self) -> NDArray[np.int64]:
        return self._counting(self._images.all())

    def _all_by_image(self) -> list[int]:
        places = self._all().data
        return [place for _, place in sorted((self._record(place).image, place) for place in places)]

    def _record(self, place: int) -> Record:
        return Record.from_line(self._line(place))

    def _line(self, place: int) -> bytes:
        stream = self._streams[place >> _OFFSET_BITS]
        with self._reading:
            stream.seek(place & ((1 << _OFFSET_BITS) - 1))
            return stream.readline(_MAX_LINE_BYTES)


class JournalSnapshot:
    """The records of an output directory at one moment, in the order of its journals, read without a lock.

    Parameters
    ----------
    output
        The output directory.

    Raises
    ------
    RequestError
        It is no output directory of this version, or its journal cannot be read.
    """

    def __init__(self, output: Path) -> None:
        require_output_directory(output)
        self._output = output
        try:
            streams = _open_all(output)
            self._before = [os.fstat(stream.fileno()) for stream in streams]
            self._index = RecordIndex(streams)
        except OSError as error:
            raise RequestError(f"{output}: its journal cannot be read ({error.strerror})") from None
        self.damaged = self._index.damaged

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._index)

    def __enter__(self) -> JournalSnapshot:
        return self

    def __exit__(self, *_: object) -> None:
        self._index.close()

    @property
    def is_current(self) -> bool:
        """Whether the journals are still the same files, of the same sizes."""
        before, now = (
            [(*_identity(status), status.st_size) for status in found]
            for found in (self._before, _on_disk(self._output))
        )
        return before == now


class Journal:
    """The records of an output directory, and the journal that a run appends to.

    A torn last line does not count; `consolidate` cuts it off. What is damaged elsewhere, `index` says.

    Parameters
    ----------
    output
        The output directory.
    shard
        The shard whose journal is appended to, or None for ``manifest.jsonl``.

    Raises
    ------
    OSError
        A journal cannot be read.
    """

    def __init__(self, output: Path | OutputStore, shard: Shard | None = None) -> None:
        self._store = as_store(output)
        self._home = self._store.journals(shard)
        self._file = journal_path(self._home.directory, shard)
        self._is_of_shard = shard is not None
        self._stream: BinaryIO | None = None
        self._load()

    def _load(self) -> None:
        streams = _open_all(self._home.directory)
        paths = [Path(stream.name) for stream in streams]
        self.index = RecordIndex(streams)
        self._number = paths.index(self._file) if self._file in paths else None
        self._others = [path for path in paths if path != self._file]

    def __iter__(self) -> Iterator[Record]:
        """Yield the records sorted by image."""
        return self.index.by_image()

    def __len__(self) -> int:
        return len(self.index)

    def get(self, image: str) -> Record | None:
        """Return the last record of an image."""
        return self.index.get(image)

    def owner(self, output: str) -> str | None:
        """Return the image whose record names this output file."""
        return self.index.owner(output)

    @property
    def types(self) -> Collection[str]:
        """The output types that records name."""
        return self.index.types

    @property
    def path(self) -> object:
        """What messages call the journal that is appended to: its path or URL."""
        return self._home.url_of(self._file)

    @property
    def size_bytes(self) -> int:
        """The length of the whole lines in the journal that is appended to."""
        return self._extent.whole_bytes

    @property
    def _extent(self) -> _Extent:
        return self.index.extents[self._number] if self._number is not None else _Extent()

    def consolidate(self) -> None:
        """Cut a torn last line off, before anything is appended.

        Without a shard also delete damaged lines and files of pruned images, and take over the records of
        other journals; only the holder of all the directory's locks may. A kill in between loses nothing: the
        other journals go when all their records are here, and say the same as long as they exist. From then
        on the file only grows: ``run.json`` has its length when the work began.
        """
        others = None
        if not self._is_of_shard:
            for name in self.index.take_orphans():
                with contextlib.suppress(OSError):
                    self._store.remove(name)
            if self._others or self.index.damaged or self._extent.lines > 2 * len(self) + 100:
                others = self._others
                self._compact()
        is_cut = _cut(self._file, self.size_bytes) if others is None else False
        self._home.consolidated(others)
        if is_cut or others is not None:
            self.index.close()
            self._load()

    def _compact(self) -> None:
        """Write one journal with the records that count."""

        def write(stream: BinaryIO) -> None:
            stream.writelines(self.index.lines(by_image=bool(self._others)))
            # Where the system does not replace open files.
            self.index.close()

        files.write_whole(self._file, write)
        files.sync_directories([self._file.parent])

    def set_aside(self) -> None:
        """Begin anew: the file, of another schema, is renamed; it is kept but never read again."""
        self.index.close()
        with contextlib.suppress(FileNotFoundError):
            path = self._file.with_name(JOURNAL_FILE)
            old = path.replace(path.with_name(f"{JOURNAL_FILE}.old"))
            files.sync_directories([path.parent])
            self._home.set_aside(old)
        self.index, self._number = RecordIndex(), None

    def append(self, records: Iterable[Record]) -> None:
        """Append records and fsync them; their output files must be on disk before."""
        pairs = [(record, to_line(record.as_json()).encode("ascii") + b"\n") for record in records]
        if not pairs:
            return
        lines = b"".join(line for _, line in pairs)
        at_once = not self._home.is_grouped or _leave_files_out(pairs, self.index)
        self._stream = self._stream or open_for_appending(self._file)
        _append(self._stream, lines, self.size_bytes)
        self._home.appended(lines, len(pairs), at_once=at_once)
        if self._number is None:
            self._number = self.index.add_journal(open_for_reading(self._file))
        for record, line in pairs:
            self.index.add(record, self._number, len(line))

    def end_appending(self) -> None:
        """Close the file that was appended to; records can still be read.

        Raises
        ------
        OSError
            In an object store: the last records cannot be written.
        """
        if self._stream is not None:
            # `append` has written and fsynced all records.
            with contextlib.suppress(OSError):
                self._stream.close()
            self._stream = None
            self._home.end()

    def close(self) -> None:
        """Close all files; call `end_appending` before, which says whether all records are written."""
        with contextlib.suppress(OSError, OutputLost):
            self.end_appending()
        self.index.close()
        self._home.close()


def _append(stream: BinaryIO, lines: bytes, whole_bytes: int) -> None:
    left = memoryview(lines)
    try:
        while left:
            left = left[stream.write(left) :]
    except OSError:
        # Whoever reads the file next finds whole lines, on a full disk too.
        with contextlib.suppress(OSError):
            stream.truncate(whole_bytes)
        raise
    os.fsync(stream.fileno())


def _cut(path: Path, whole_bytes: int) -> bool:
    """Cut a torn line off the end of a file; say whether there was one."""
    with contextlib.suppress(FileNotFoundError), open(path, "r+b", opener=files.open_regular) as stream:
        if stream.seek(0, os.SEEK_END) > whole_bytes:
            stream.truncate(whole_bytes)
            os.fsync(stream.fileno())
            return True
    return False


def _leave_files_out(pairs: Iterable[tuple[Record, bytes]], index: RecordIndex) -> bool:
    """Say whether records no longer name files that earlier ones do: these files may be changed next."""
    for record, _ in pairs:
        earlier = index.get(record.image)
        if record.status == "gone" or (earlier is not None and not {*earlier.outputs} <= {*record.outputs}):
            return True
    return False

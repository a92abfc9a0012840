"""What the actors of a run have in hand and have done. It lives in an actor of its own, beside the driver."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ..common.errors import ExitCode

DEATHS_TO_FAIL = 2
"""A photo fails when so many actors have died with it in hand."""


class Entry(NamedTuple):
    """A photo that is done: its place in the run, its record as a line of JSON.

    `replaces` is False for the record of a failure that leaves the photo's earlier record as it is.
    """

    photo: int
    line: str
    replaces: bool = True


class Problem(NamedTuple):
    """Why an actor cannot work: the exit code, and the message."""

    exit_code: ExitCode
    text: str


class BlockState(NamedTuple):
    """What is known of a block's photos when an actor begins the block, perhaps not as the first one.

    `done` have records. `suspects` were in hand when an actor died: they are taken one by one, so that the
    one to blame shows. `killers` were so twice, and fail.
    """

    done: frozenset[int]
    suspects: frozenset[int]
    killers: frozenset[int]


class Collected(NamedTuple):
    """What the driver learns with one call: see `Ledger.collect`."""

    entries: Sequence[Entry]
    executions: Sequence[dict[str, object]]
    problem: Problem | None
    busy: int
    deaths: int


class Ledger:
    """Keeps account of a run's photos, by their place in it; it survives every actor.

    A block is known by its first photo.
    """

    def __init__(self) -> None:
        self._in_hand: dict[int, set[int]] = {}
        self._deaths: Counter[int] = Counter()
        self._done: set[int] = set()
        self._entries: list[Entry] = []
        self._executions: list[dict[str, object]] = []
        self._problem: Problem | None = None
        self._is_stopping = False
        self._actor_deaths = 0

    def ready(self, execution: dict[str, object]) -> None:
        """Note that an actor is ready, and how it computes."""
        self._executions.append(execution)

    def give_up(self, problem: Problem) -> None:
        """Note why an actor cannot work; the run ends."""
        self._problem = self._problem or problem
        self._is_stopping = True

    def stop(self) -> None:
        """Let the actors finish what they have in hand, and begin nothing."""
        self._is_stopping = True

    def begin_block(self, block: int, photos: Sequence[int]) -> BlockState | None:
        """Begin a block, or go on with one whose actor died; None when nothing may begin any more."""
        if block in self._in_hand:
            # Nobody ended this block: its actor died, with these photos in hand.
            self._deaths.update(self._in_hand.pop(block))
            self._actor_deaths += 1
        if self._is_stopping:
            return None
        self._in_hand[block] = set()
        left = [photo for photo in photos if photo not in self._done]
        return BlockState(
            frozenset(photo for photo in photos if photo in self._done),
            frozenset(photo for photo in left if 0 < self._deaths[photo] < DEATHS_TO_FAIL),
            frozenset(photo for photo in left if self._deaths[photo] >= DEATHS_TO_FAIL),
        )

    def take_up(self, block: int, photo: int) -> bool:
        """Mark a photo as in hand; False when nothing may begin any more."""
        if self._is_stopping:
            return False
        # An actor that was cut off, and lives, can be in a block that another has ended.
        self._in_hand.get(block, set()).add(photo)
        return True

    def finish(self, block: int, entries: Sequence[Entry]) -> None:
        """Take the records of photos whose files are on disk."""
        for entry in entries:
            self._in_hand.get(block, set()).discard(entry.photo)
            # Two actors can have done the same, when one was cut off and lives.
            if entry.photo not in self._done:
                self._done.add(entry.photo)
                self._entries.append(entry)

    def end_block(self, block: int) -> None:
        """Note that an actor has ended a block, and lives."""
        self._in_hand.pop(block, None)

    def collect(self) -> Collected:
        """Return what came since the last call: records, how new actors compute; and how things stand.

        `busy` is the number of blocks in hand, `deaths` that of actors that died in the middle of one.
        """
        collected = Collected(
            self._entries, self._executions, self._problem, len(self._in_hand), self._actor_deaths
        )
        self._entries, self._executions = [], []
        return collected

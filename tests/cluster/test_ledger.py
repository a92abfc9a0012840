"""The account of photos in hand: who kills an actor twice fails, and everything else is done once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fcn_cli.cluster.ledger import DEATHS_TO_FAIL, BlockState, Entry, Ledger, Problem
from fcn_cli.common.errors import ExitCode


def test_a_dead_actors_successor_learns_what_was_in_hand() -> None:
    ledger = Ledger()
    assert ledger.begin_block(5, [5, 6, 7, 8]) == BlockState(frozenset(), frozenset(), frozenset())
    assert ledger.take_up(5, 5)
    assert ledger.take_up(5, 6)
    assert ledger.take_up(5, 7)
    ledger.finish(5, [Entry(5, "five")])
    # The actor dies; another begins the block.
    assert ledger.begin_block(5, [5, 6, 7, 8]) == BlockState(frozenset({5}), frozenset({6, 7}), frozenset())
    assert ledger.take_up(5, 6)
    # It dies with one of the two in hand: that one is to blame, and not the other.
    assert ledger.begin_block(5, [5, 6, 7, 8]) == BlockState(frozenset({5}), frozenset({7}), frozenset({6}))
    ledger.finish(5, [Entry(6, "six"), Entry(7, "seven"), Entry(8, "eight")])
    ledger.end_block(5)
    collected = ledger.collect()
    assert [entry.photo for entry in collected.entries] == [5, 6, 7, 8]
    assert (collected.busy, collected.deaths, collected.problem) == (0, 2, None)
    assert ledger.collect().entries == []


def test_a_block_that_has_ended_is_no_death() -> None:
    """Its result can be lost with a node; then Ray gives it out again, and there is nothing left to do."""
    ledger = Ledger()
    ledger.begin_block(0, [0])
    ledger.take_up(0, 0)
    ledger.finish(0, [Entry(0, "zero")])
    ledger.end_block(0)
    assert ledger.begin_block(0, [0]) == BlockState(frozenset({0}), frozenset(), frozenset())
    # An actor that was cut off and lives says the same again, or says more.
    ledger.finish(0, [Entry(0, "zero again")])
    ledger.end_block(0)
    ledger.take_up(0, 0)
    ledger.finish(0, [Entry(0, "zero for the third time")])
    collected = ledger.collect()
    assert ([entry.line for entry in collected.entries], collected.deaths) == (["zero"], 0)


def test_after_a_problem_nothing_begins() -> None:
    ledger = Ledger()
    ledger.begin_block(0, [0, 1])
    ledger.take_up(0, 0)
    ledger.give_up(Problem(ExitCode.STOPPED, "the disk is full"))
    ledger.give_up(Problem(ExitCode.STOPPED, "and here too"))
    assert not ledger.take_up(0, 1)
    assert ledger.begin_block(2, [2]) is None
    assert ledger.collect().problem == Problem(ExitCode.STOPPED, "the disk is full")
    assert ledger.collect().busy == 1


@given(
    killers=st.sets(st.integers(0, 11), max_size=4),
    window=st.integers(1, 5),
    others=st.lists(st.integers(0, 40), max_size=2),
)
def test_whatever_kills_only_killers_fail(killers: set[int], window: int, others: list[int]) -> None:
    """An actor has up to `window` photos in hand, suspects alone; `others` are deaths without a cause."""
    photos, ledger, events = list(range(12)), Ledger(), 0
    failed: set[int] = set()
    done: set[int] = set()
    for _ in range(DEATHS_TO_FAIL * len(killers) + len(others) + 1):
        state = ledger.begin_block(0, photos)
        assert state is not None
        assert state.done == done | failed
        ledger.finish(0, [Entry(photo, "failed") for photo in state.killers])
        failed |= state.killers
        rest = [p for p in photos if p not in state.done | state.killers | state.suspects]
        batches = [[p] for p in sorted(state.suspects)]
        batches += [rest[first : first + window] for first in range(0, len(rest), window)]
        is_dead = False
        for batch in batches:
            for photo in batch:
                ledger.take_up(0, photo)
            events += 1
            # A death without a cause hits while nothing is in hand: those that hit a photo count for it.
            if killers & set(batch):
                is_dead = True
                break
            ledger.finish(0, [Entry(photo, "done") for photo in batch])
            done |= set(batch)
            if events in others:
                is_dead = True
                break
        if not is_dead:
            ledger.end_block(0)
            break
    assert failed == killers
    assert done == set(photos) - killers
    assert sorted(entry.photo for entry in ledger.collect().entries) == photos

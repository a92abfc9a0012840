"""How a cluster is divided among actors and images among blocks; only what kills actors twice fails."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcn_cli.cluster.shares import (
    DEATHS_TO_FAIL,
    LARGEST_BLOCK,
    SMALLEST_BLOCK,
    BlockQueue,
    Share,
    block_count,
    divide,
)
from fcn_cli.common.errors import RequestError
from fcn_cli.inference.options import InferenceOptions


@given(images=st.integers(1, 200_000), actors=st.integers(1, 200))
def test_blocks_have_their_sizes_and_no_actor_is_idle(images: int, actors: int) -> None:
    count = block_count(images, actors)
    smallest, largest = images // count, -(-images // count)
    assert largest <= LARGEST_BLOCK
    assert smallest >= min(SMALLEST_BLOCK, images)
    assert count >= 1
    if images >= 4 * SMALLEST_BLOCK * actors:
        assert count >= 4 * actors
    queue = BlockQueue(images, count)
    assert [place for _ in range(count) for place in queue.take().places] == list(range(images))
    assert len(queue) == 0


def test_after_a_death_the_rest_comes_singly() -> None:
    queue = BlockQueue(4, 1)
    block = queue.take()
    assert queue.finished(0)
    assert not queue.finished(0)
    # The actor dies with any of three in hand.
    assert queue.died(block, None) == []
    again = queue.take()
    assert (again.places, again.singly) == ([1, 2, 3], True)
    queue.finished(1)
    # It dies with one of them in hand: that one is to blame.
    assert queue.died(again, 2) == [2]
    queue.finished(2)
    last = queue.take()
    assert (last.places, last.singly) == ([3], True)
    # An actor that dies between two images had none in hand.
    assert queue.died(last, None) == []
    assert queue.take().places == [3]


@given(
    killers=st.sets(st.integers(0, 11), max_size=4),
    window=st.integers(1, 5),
    others=st.sets(st.integers(0, 40), max_size=3),
)
def test_whatever_kills_only_killers_fail(killers: set[int], window: int, others: set[int]) -> None:
    """An actor has up to `window` images in hand, singly one; `others` are deaths between two images."""
    queue, events, done, failed = BlockQueue(12, 2), 0, set[int](), list[int]()
    for _ in range(DEATHS_TO_FAIL * len(killers) + len(others) + 2):
        if not len(queue):
            break
        block = queue.take()
        size = 1 if block.singly else window
        places = list(block.places)
        for first in range(0, len(places), size):
            batch = places[first : first + size]
            events += 1
            begun = batch[0] if block.singly else None
            if events in others and block.singly:
                begun = None
            if killers & set(batch) or events in others:
                for place in queue.died(block, begun):
                    assert queue.finished(place)
                    failed.append(place)
                break
            assert all(queue.finished(place) for place in batch)
            done |= set(batch)
    assert len(queue) == 0
    assert set(failed) <= killers
    assert done == set(range(12)) - set(failed)
    assert queue.recorded == set(range(12))


CASES: dict[str, tuple[list[dict[str, float]], dict[str, Any], Share]] = {
    "one small machine": ([{"CPU": 2.0}], {}, Share(1, 1, 2, 0)),
    "threads are the share": ([{"CPU": 8.0}, {"CPU": 3.0}], {"threads": 2}, Share(5, 2, 2, 0)),
    "auto is at most four": ([{"CPU": 8.0}, {"CPU": 9.0}], {}, Share(4, 2, 4, 0)),
    "a node without CPUs": ([{"memory": 1.0}, {"CPU": 1.0}], {}, Share(1, 1, 1, 0)),
    "one actor per GPU": ([{"CPU": 16.0, "GPU": 4.0}, {"CPU": 8.0}], {}, Share(4, 1, 4, 1)),
    "GPUs, few CPUs": ([{"CPU": 2.0, "GPU": 4.0}], {"device": "cuda"}, Share(4, 1, 0, 1)),
    "GPUs, many CPUs": ([{"CPU": 96.0, "GPU": 2.0}, {"CPU": 96.0, "GPU": 1.0}], {}, Share(3, 2, 16, 1)),
    "GPUs that are not asked for": ([{"CPU": 8.0, "GPU": 1.0}], {"device": "cpu"}, Share(2, 1, 4, 0)),
}


@pytest.mark.parametrize("case", CASES)
def test_each_actor_gets_a_gpu_or_a_share_of_the_cpus(case: str) -> None:
    nodes, options, share = CASES[case]
    assert divide(nodes, InferenceOptions(**options)) == share


@pytest.mark.parametrize(
    ("nodes", "options", "message"),
    [
        ([{"CPU": 2.0}], {"device": "cuda"}, "no node of the Ray cluster has a GPU"),
        ([{"CPU": 2.0}, {"CPU": 4.0}], {"threads": 5}, "the largest has 4"),
        ([{"CPU": 0.0}], {}, "no node of the Ray cluster has a CPU"),
    ],
)
def test_what_a_cluster_does_not_have_is_refused(
    nodes: list[dict[str, float]], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        divide(nodes, InferenceOptions(**options))

"""How a cluster is divided among actors, and photos among blocks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcn_cli.cluster.shares import LARGEST_BLOCK, SMALLEST_BLOCK, Share, divide, make_blocks
from fcn_cli.common.errors import RequestError
from fcn_cli.inference.options import InferenceOptions


@given(photos=st.integers(1, 200_000), actors=st.integers(1, 200))
def test_blocks_have_their_sizes_and_no_actor_is_idle(photos: int, actors: int) -> None:
    blocks = make_blocks(photos, actors)
    smallest, largest = photos // blocks.count, -(-photos // blocks.count)
    assert largest <= LARGEST_BLOCK
    assert smallest >= min(SMALLEST_BLOCK, photos)
    assert 1 <= blocks.actors <= min(actors, blocks.count)
    if photos >= 4 * SMALLEST_BLOCK * actors:
        assert blocks.actors == actors
        assert blocks.count >= 4 * actors
    # All actors that have a block can have one.
    assert blocks.actors == min(actors, blocks.count)


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

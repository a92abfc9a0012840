"""How a cluster is divided among actors, and the photos of a run among blocks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..common.errors import RequestError
from ..inference.options import InferenceOptions

SMALLEST_BLOCK, LARGEST_BLOCK = 16, 128
"""How many photos a block has: it is one task of an actor, and what a dead actor's successor goes through."""

_BLOCKS_PER_ACTOR = 4
"""So many blocks at least for each actor, where there are enough photos: all end at about the same time."""

_AUTO_CPUS = 4
_MAX_CPUS_BESIDE_GPU = 16


@dataclass(frozen=True)
class Share:
    """What each actor gets: CPUs, for its threads and decoding processes, and GPUs (0 or 1).

    `actors` is how many of them fit into the cluster, on `nodes` nodes.
    """

    actors: int
    nodes: int
    cpus: int
    gpus: int


def divide(nodes: Sequence[Mapping[str, Any]], options: InferenceOptions) -> Share:
    """Divide a cluster: one actor per GPU, or per share of CPUs where no GPU is to be used.

    Parameters
    ----------
    nodes
        The resources of each node, as Ray counts them: ``{"CPU": 8.0, "GPU": 2.0}``.
    options
        The device, and the threads of each actor.

    Raises
    ------
    RequestError
        The cluster does not have what is asked for.
    """
    with_gpu = [node for node in nodes if int(node.get("GPU", 0))]
    if options.device == "cuda" and not with_gpu:
        raise RequestError("--device cuda: no node of the Ray cluster has a GPU")
    if with_gpu and options.device != "cpu":
        per_gpu = min(int(node.get("CPU", 0)) // int(node["GPU"]) for node in with_gpu)
        return Share(
            sum(int(node["GPU"]) for node in with_gpu),
            len(with_gpu),
            min(per_gpu, _MAX_CPUS_BESIDE_GPU),
            1,
        )
    with_cpu = [cpus for node in nodes if (cpus := int(node.get("CPU", 0)))]
    if not with_cpu:
        raise RequestError("no node of the Ray cluster has a CPU for tasks (num_cpus is 0 everywhere)")
    cpus = options.threads or min(_AUTO_CPUS, *with_cpu)
    fitting = [count for count in with_cpu if count >= cpus]
    if not fitting:
        raise RequestError(
            f"--threads {cpus}: no node of the Ray cluster has so many CPUs; the largest has {max(with_cpu)}"
        )
    return Share(sum(count // cpus for count in fitting), len(fitting), cpus, 0)


@dataclass(frozen=True)
class Blocks:
    """How many blocks the photos of a run make, and how many actors work on them."""

    count: int
    actors: int


def make_blocks(photos: int, actors: int) -> Blocks:
    """Divide photos into blocks of about equal size.

    Blocks have `SMALLEST_BLOCK` to `LARGEST_BLOCK` photos, fewer only where there are fewer in all. There are
    four for each actor where that leaves them large enough. No actor is without a block.
    """
    size = max(SMALLEST_BLOCK, min(LARGEST_BLOCK, photos // (_BLOCKS_PER_ACTOR * actors)))
    # Rounded to the number of blocks in which none is smaller than the smallest.
    count = max(1, min(math.ceil(photos / size), photos // SMALLEST_BLOCK))
    return Blocks(count, min(actors, count))

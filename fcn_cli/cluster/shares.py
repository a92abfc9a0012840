"""Divide a cluster among actors and the images among blocks; reassign images after an actor died."""

from __future__ import annotations

import itertools
import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..common.errors import RequestError
from ..inference.options import InferenceOptions

SMALLEST_BLOCK, LARGEST_BLOCK = 16, 128
"""How many images a block has: it is one task of an actor, and what goes singly after its death."""

_BLOCKS_PER_ACTOR = 4
"""So many blocks at least for each actor, where there are enough images: all end at about the same time."""

DEATHS_TO_FAIL = 2
"""An image fails when so many actors have died with it in flight."""

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
            f"--threads {cpus}: no node of the Ray cluster has that many CPUs; the largest has "
            f"{max(with_cpu)}"
        )
    return Share(sum(count // cpus for count in fitting), len(fitting), cpus, 0)


def block_count(images: int, actors: int) -> int:
    """Return how many blocks of about equal size the images of a run make.

    Blocks have `SMALLEST_BLOCK` to `LARGEST_BLOCK` images, fewer only where there are fewer in all. There are
    four for each actor where that leaves them large enough.
    """
    size = max(SMALLEST_BLOCK, min(LARGEST_BLOCK, images // (_BLOCKS_PER_ACTOR * actors)))
    # Rounded to the number of blocks in which none is smaller than the smallest.
    return max(1, min(math.ceil(images / size), images // SMALLEST_BLOCK))


@dataclass(frozen=True)
class Block:
    """Places of images in the run, in order. `singly`: an actor died with one of them in flight."""

    places: Sequence[int]
    singly: bool = False


class BlockQueue:
    """The blocks of a run that wait for an actor, and which images have a record.

    After a death the rest of the block waits again, to be done one image at a time: so the image to blame
    shows.
    """

    def __init__(self, images: int, count: int) -> None:
        bounds = [images * number // count for number in range(count + 1)]
        self._waiting = deque(Block(range(*pair)) for pair in itertools.pairwise(bounds))
        self._deaths: Counter[int] = Counter()
        self.recorded: set[int] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> Block:
        """Return the next block."""
        return self._waiting.popleft()

    def clear(self) -> None:
        """Drop all blocks: nothing is to begin any more."""
        self._waiting.clear()

    def finished(self, place: int) -> bool:
        """Note that an image has a record; False when it had one: an actor that was cut off may live on."""
        is_new = place not in self.recorded
        self.recorded.add(place)
        return is_new

    def died(self, block: Block, begun: int | None) -> list[int]:
        """Queue the rest of a block whose actor died; return the images that fail.

        `begun` is the image in flight, of a block that is done singly; of other blocks any of the rest was.
        """
        left = [place for place in block.places if place not in self.recorded]
        self._deaths.update(left if not block.singly else [] if begun is None else [begun])
        failed = [place for place in left if self._deaths[place] >= DEATHS_TO_FAIL]
        if rest := [place for place in left if place not in failed]:
            self._waiting.appendleft(Block(rest, singly=True))
        return failed

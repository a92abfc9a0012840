"""Options of inference, without heavy imports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..common.class_names import class_name, find_class, hint_at_classes
from ..common.errors import RequestError
from ..common.label_map import VOID_INDEX

SMALLEST_TILE = 128
"""The shortest side of a tile in pixels: the network sees too little of an image in a smaller one."""


@dataclass(frozen=True)
class ViewOptions:
    """What the network sees of an image at a time: all of it, or tiles; also its mirror image, or not.

    `tile` is the side of a tile in pixels, or None for the whole image; `overlap` is how many pixels
    neighbours share, None is a quarter of the tile. Both are rounded up to a multiple of the network's
    stride. With `flip` the probabilities of the image and of its mirror image are averaged.

    Raises
    ------
    RequestError
        The tile is smaller than `SMALLEST_TILE` or than twice the overlap, or there is no tile to overlap.
    """

    tile: int | None = None
    overlap: int | None = None
    flip: bool = False

    def __post_init__(self) -> None:
        if self.tile is None:
            if self.overlap is not None:
                raise RequestError("--overlap says how far tiles overlap: add --tile")
            return
        if self.tile < SMALLEST_TILE:
            raise RequestError(f"--tile {self.tile}: a tile has at least {SMALLEST_TILE} pixels a side")
        if self.overlap is not None and not 0 <= 2 * self.overlap <= self.tile:
            raise RequestError(
                f"--overlap {self.overlap}: at most half of --tile {self.tile}, which is {self.tile // 2}"
            )

    @property
    def shared(self) -> int | None:
        """How many pixels neighbouring tiles share, before rounding; None without tiles."""
        if self.tile is None or self.overlap is not None:
            return self.overlap
        return self.tile // 4


@dataclass(frozen=True)
class MinConfidence:
    """The probability, 0 to 1, below which a pixel becomes void: of some classes, and of all others.

    Classes are given by name or index.
    """

    others: float = 0.0
    classes: tuple[tuple[str, float], ...] = ()

    def by_index(self, class_names: Sequence[str] | None) -> Mapping[int, float]:
        """Return what is given for single classes, by index; RequestError where there is no such class.

        None as names stands for classes that have numbers only.
        """
        names = class_names or [class_name((), index) for index in range(VOID_INDEX)]
        found: dict[int, float] = {}
        for text, probability in self.classes:
            index = find_class(text, names)
            if index is None:
                raise RequestError(f"--min-confidence {text}: no such class; {hint_at_classes(text, names)}")
            found[index] = probability
        return found

    def setting(self, class_names: Sequence[str] | None) -> float | str:
        """Return how it stands in settings: a number, or by class ``8=0.7,0.5``."""
        by_index = {i: p for i, p in sorted(self.by_index(class_names).items()) if p != self.others}
        single = [f"{index}={probability:g}" for index, probability in by_index.items()]
        return ",".join([*single, f"{self.others:g}"]) if single else self.others


@dataclass(frozen=True)
class InferenceOptions:
    """How the network is run; what ``auto`` and None stand for is `execution.resolve_execution`'s to say.

    `device` is ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. `precision` is ``auto``, ``fp32``, ``bf16`` or
    ``fp16``. `kernels` is ``auto``, ``fast`` or ``torch``. `batch_size` is the number of images of one shape
    per forward pass, `threads` that of the network's CPU threads.
    """

    device: str = "auto"
    precision: str = "auto"
    kernels: str = "auto"
    batch_size: int | None = None
    threads: int | None = None
    min_confidence: MinConfidence = MinConfidence()
    views: ViewOptions = field(default_factory=ViewOptions)

"""What is to be written where, as users ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..common.output_layout import DEFAULT_KINDS
from .looks import LookRequest


@dataclass(frozen=True)
class OutputRequest:
    """An output directory, and what it shall hold of each photo.

    `kinds` are kinds of output, `look` is how they look. With `keep_extension` outputs are called
    ``cat.jpg.png`` instead of ``cat.png``.
    """

    directory: str = "fcn_output"
    kinds: Sequence[str] = DEFAULT_KINDS
    look: LookRequest = field(default_factory=LookRequest)
    keep_extension: bool = False

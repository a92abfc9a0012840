"""What is to be written where, as users ask for it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from ..common import palettes
from ..common.output_layout import DEFAULT_KINDS


@dataclass(frozen=True)
class OutputRequest:
    """An output directory, and what it shall hold of each photo.

    `kinds` are kinds of output. `palette` is a palette's name or a JSON file. With `keep_extension` outputs
    are called ``cat.jpg.png`` instead of ``cat.png``.
    """

    directory: str = "fcn_output"
    kinds: Sequence[str] = DEFAULT_KINDS
    palette: str = "hub"
    keep_extension: bool = False

    def load_palette(self) -> tuple[palettes.Palette, str]:
        """Return the colours, and what records call them: a palette's name, or the hash of a file's colours.

        Raises
        ------
        RequestError
            There is no such palette, or the file cannot be used.
        """
        colors = palettes.load(self.palette)
        if self.palette in palettes.BUILT_IN:
            return colors, self.palette
        return colors, f"sha256:{hashlib.sha256(colors.tobytes()).hexdigest()[:16]}"

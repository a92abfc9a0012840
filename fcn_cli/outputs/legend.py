"""The legend below an overlay: a swatch and the name of each class."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

PAPER = (255, 255, 255)
"""The colour behind the legend."""

_INK = (20, 20, 20)
_SMALLEST_TEXT = 12
# Text of one pixel for so many pixels of the side of a square with the image's area.
_SIDE_PER_TEXT_PIXEL = 45
_LONGEST_NAME = 40
# Times the height of the text; ligatures of some scripts, such as U+FDFD, are that wide.
_WIDEST_CHARACTER = 12
# Installed fonts for names in other scripts than the built-in font's ASCII; the first that has all their
# characters is taken. Between them they cover most scripts on Linux, macOS and Windows.
_INSTALLED_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "segoeui.ttf",
    "msyh.ttc",
    "YuGothM.ttc",
    "malgun.ttf",
    "Nirmala.ttc",
    "unifont.otf",
)

# A code point that no font has a character for.
_MISSING = "\U0010ffff"


class Entry(NamedTuple):
    """A class in the legend: its name, what to call it when no font has its name's characters, its RGB."""

    name: str
    label: str
    color: tuple[int, int, int]


class _Placed(NamedTuple):
    text: str
    font: ImageFont.FreeTypeFont
    color: tuple[int, int, int]
    left: int
    row: int


def draw(entries: Sequence[Entry], image_size: tuple[int, int]) -> Image.Image:
    """Return the legend as an RGB image, at least as wide as its longest entry.

    The text grows with the image; entries wrap at the image's width. A name is written with Pillow's built-in
    font if that has its characters (ASCII), else with an installed font that does, else without accents, or
    as ``class_<index>``. Names of more than 40 characters are cut.
    """
    width, size = image_size[0], _text_size(image_size)
    line, gap = round(1.5 * size), round(0.6 * size)
    placed, full_width = _place(entries, _Fonts(size), width, size)
    rows = placed[-1].row + 1
    image = Image.new("RGB", (max(width, full_width), rows * line + gap), PAPER)
    canvas = ImageDraw.Draw(image)
    for entry in placed:
        top = gap // 2 + entry.row * line
        middle = top + line // 2
        box = (entry.left, middle - size // 2, entry.left + size, middle - size // 2 + size)
        canvas.rectangle(box, fill=entry.color, outline=_INK, width=max(1, size // 12))
        canvas.text((entry.left + size + gap, middle), entry.text, fill=_INK, font=entry.font, anchor="lm")
    return image


def largest(image_size: tuple[int, int], classes: int) -> tuple[int, int]:
    """Return a (width, height) that no image with its legend exceeds: each class in a row of its own."""
    width, height = image_size
    size = _text_size(image_size)
    return max(width, (_LONGEST_NAME + 4) * _WIDEST_CHARACTER * size), height + 2 * size * (classes + 1)


def _text_size(image_size: tuple[int, int]) -> int:
    width, height = image_size
    return max(_SMALLEST_TEXT, round(math.sqrt(width * height) / _SIDE_PER_TEXT_PIXEL))


def _place(entries: Sequence[Entry], fonts: _Fonts, width: int, size: int) -> tuple[list[_Placed], int]:
    """Return the entries with their places in rows of this width, and the width that they need."""
    gap = round(0.6 * size)
    placed: list[_Placed] = []
    left, row, needed = gap, 0, 0
    for entry in entries:
        text, font = fonts.choose(entry)
        wide = size + gap + math.ceil(font.getlength(text)) + gap
        if left > gap and left + wide > width:
            left, row = gap, row + 1
        placed.append(_Placed(text, font, entry.color, left, row))
        left += wide
        needed = max(needed, left)
        left += gap
    return placed, needed


class _Fonts:
    """The fonts of one legend, of one size; a font object is never shared between threads."""

    def __init__(self, size: int) -> None:
        self._size = size
        built_in = ImageFont.load_default(size)
        assert isinstance(built_in, ImageFont.FreeTypeFont)  # noqa: S101 - with a size it is
        self._built_in = built_in
        self._installed: list[ImageFont.FreeTypeFont] | None = None

    def choose(self, entry: Entry) -> tuple[str, ImageFont.FreeTypeFont]:
        """Return how to write an entry's name, and the font for it."""
        name = unicodedata.normalize("NFC", entry.name)
        if len(name) > _LONGEST_NAME:
            name = f"{name[: _LONGEST_NAME - 3]}..."
        if name.isprintable():
            for font in self._all():
                if _has(font, name):
                    return name, font
            plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
            if plain.isascii():
                return plain, self._built_in
        return entry.label, self._built_in

    def _all(self) -> Iterator[ImageFont.FreeTypeFont]:
        yield self._built_in
        if self._installed is None:
            self._installed = []
            for file in _INSTALLED_FONTS:
                try:
                    self._installed.append(ImageFont.truetype(file, self._size))
                except OSError:
                    continue
        yield from self._installed


def _has(font: ImageFont.FreeTypeFont, text: str) -> bool:
    """Say whether a font has all characters of a text: what it lacks, it draws as one and the same box."""
    missing = _drawn(font, _MISSING)
    return all(character == " " or _drawn(font, character) != missing for character in set(text))


def _drawn(font: ImageFont.FreeTypeFont, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)

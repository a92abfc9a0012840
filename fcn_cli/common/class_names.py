"""Class names: Pascal VOC's or a user's own; names of label map values, and the class that a name means."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from . import files
from .errors import RequestError
from .label_map import VOID_INDEX
from .wording import alternatives

VOC_CLASSES = (
    "__background__",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""Class names in index order, spelled as in torchvision's weights."""

VOC_NAMES = "voc"

_SHOWN_NAMES = 30


def load_class_names(option: str | None) -> tuple[str, ...] | None:
    """Return the class names that ``--class-names`` selects, or None without the option.

    Parameters
    ----------
    option
        ``voc``, or the path of a UTF-8 file with one name a line; blank lines are ignored.

    Raises
    ------
    RequestError
        The file cannot be read, is empty, or repeats a name.
    """
    if option is None:
        return None
    if option == VOC_NAMES:
        return VOC_CLASSES
    try:
        lines = files.read_small(Path(option), follow=True).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise RequestError(f"--class-names {option}: cannot be read ({reason})") from None
    names = tuple(line.strip() for line in lines if line.strip())
    if not names or len(set(names)) != len(names):
        raise RequestError(f"--class-names {option}: needs one name per line, without duplicates")
    return names


def class_name(names: Sequence[str], index: int) -> str:
    """Return the name of a label map value: the class name, ``void`` for 255, else ``class_<index>``."""
    return names[index] if index < len(names) else ("void" if index == VOID_INDEX else f"class_{index}")


def find_class(text: str, names: Sequence[str]) -> int | None:
    """Return the index of a class, or None if there is none.

    Parameters
    ----------
    text
        A name: as it is, in upper or lower case, or without the underscores around it; or an index.
    names
        The names of all classes in index order. Of several classes of one name, the first is meant.
    """
    ways = (str, str.casefold, lambda name: name.strip("_").casefold())
    for way in ways:
        for index, name in enumerate(names):
            if way(name) == way(text):
                return index
    is_index = text.isascii() and text.isdigit() and len(text) <= len(str(len(names)))
    return int(text) if is_index and int(text) < len(names) else None


def hint_at_classes(text: str, names: Sequence[str]) -> str:
    """Return what to say of a class that is not there: names like it, or those that there are."""
    folded = {name.casefold(): name for name in reversed(names)}
    close = difflib.get_close_matches(text.casefold(), folded, n=3)
    if close:
        return f"did you mean {alternatives(folded[name] for name in close)}?"
    shown = names[:_SHOWN_NAMES]
    return f"the classes are {', '.join(shown)}{', …' if len(names) > len(shown) else ''}"

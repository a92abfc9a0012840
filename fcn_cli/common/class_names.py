"""Class names: Pascal VOC's, a user's own, and the name of a label map value."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from . import files
from .errors import RequestError
from .label_map import VOID_INDEX

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

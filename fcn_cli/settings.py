"""The settings of a run: their values, their fingerprint, and the file that keeps them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import storage
from .errors import RequestError, SettingsMismatch
from .images import DEFAULT_MAX_PIXELS
from .sources import SETTINGS_FILE, SETTINGS_MARK

SCHEMA = 1
DEFAULT_KINDS = ("masks", "color")
DEFAULT_SHORT_SIDE = 520


@dataclass(frozen=True)
class LabelSettings:
    """What shapes the label maps, as requested; the fingerprint is taken over exactly these.

    `weights` is the sha256 of the checkpoint; of an official one, known without the file, its published
    first 8 digits. `resize` is the short side in pixels, or None for the native size. Pixels with a smaller
    probability than `min_confidence` are void.
    """

    backbone: str
    weights: str
    resize: int | None
    precision: str
    kernels: str
    class_names: tuple[str, ...] | None
    min_confidence: float = 0.0

    def fingerprint(self) -> str:
        """Return 16 hex digits that stand for these settings."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()[:16]

    def as_json(self) -> dict[str, Any]:
        """Return the settings under the names of their options."""
        return {
            "backbone": self.backbone,
            "weights": self.weights,
            "resize": self.resize if self.resize is not None else "none",
            "precision": self.precision,
            "kernels": self.kernels,
            "class_names": list(self.class_names) if self.class_names is not None else None,
            "min_confidence": self.min_confidence,
        }


@dataclass(frozen=True)
class FileSettings:
    """What shapes the files of an output directory beside the label maps.

    `palette` is a palette's name, or the hash of its colours when it comes from a file.
    """

    palette: str
    keep_extension: bool

    def as_json(self) -> dict[str, Any]:
        """Return the settings under the names of their options."""
        return {"palette": self.palette, "keep_extension": self.keep_extension}


@dataclass(frozen=True)
class Machinery:
    """How the work is done; none of it shapes a label map.

    None stands for ``auto``. `decode_seconds` is how long one image may take to decode.
    """

    device: str = "auto"
    threads: int | None = None
    batch_size: int | None = None
    workers: int | None = None
    max_image_pixels: int = DEFAULT_MAX_PIXELS
    decode_seconds: float = 60.0


def save(output: Path, label: LabelSettings, files: FileSettings, weights_sha256: str) -> None:
    """Write the settings file of an output directory."""
    content = {
        SETTINGS_MARK: SCHEMA,
        "labels": label.as_json(),
        "files": files.as_json(),
        "fingerprint": label.fingerprint(),
        "weights_sha256": weights_sha256,
    }
    storage.write_text(output / SETTINGS_FILE, json.dumps(content, indent=2) + "\n")


def check(output: Path, label: LabelSettings, files: FileSettings) -> bool:
    """Compare with the settings that an output directory was written with; False when it has none yet.

    Raises
    ------
    SettingsMismatch
        They differ; the text names the settings that do.
    RequestError
        The settings file cannot be understood.
    """
    path = output / SETTINGS_FILE
    try:
        kept = json.loads(path.read_bytes())
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise RequestError(f"{path}: cannot be read ({error}); use another --output") from None
    if not isinstance(kept, dict) or SETTINGS_MARK not in kept:
        raise RequestError(f"{path}: not written by fcn; use another --output")
    if kept[SETTINGS_MARK] != SCHEMA:
        raise RequestError(f"{path}: written by another version of fcn; use another --output")
    now = {**label.as_json(), **files.as_json()}
    then = {**_mapping(kept.get("labels")), **_mapping(kept.get("files"))}
    differing = [name for name in now if then.get(name) != now[name]]
    if differing:
        texts = [
            f"--{name.replace('_', '-')} was {_text(then.get(name))}, is {_text(now[name])}"
            for name in differing
        ]
        raise SettingsMismatch(
            f"{output} was written with other settings: {'; '.join(texts)}. "
            "Use another --output, or --overwrite to redo everything"
        )
    return True


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 40 else text[:37] + "..."

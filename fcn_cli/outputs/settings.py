"""The settings of a run: their values, their fingerprint, and the file that stores them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..common import files
from ..common.errors import RequestError, SettingsMismatch
from ..common.files import ReadableFile
from ..common.output_layout import JOURNAL_FILE, LOCK_FILE, RUN_FILE, SETTINGS_FILE, SETTINGS_MARK
from ..common.shard import shards_with
from ..inputs.samples import Rendering
from .output_store import LocalFile, LocalStore, OutputStore, ReadableDirectory
from .run_file import RunFile

SCHEMA = 2
"""The schema of the settings file and the journal's records; 0.1.0 wrote schema 1."""

LATER_OPTIONS: dict[str, object] = {
    "stretch": False,
    "alpha": None,
    "map": None,
    "min_region": 0,
    "network_card": None,
}
"""Options that 0.2 did not have, and their defaults. At its default one is in neither the fingerprint nor the
file, so that a new option leaves finished directories finished."""


@dataclass(frozen=True)
class LabelSettings:
    """The settings that shape the label maps, as requested; the fingerprint is a hash of exactly these.

    `weights` is the sha256 of the checkpoint; for official weights, which need not be on disk, its published
    first 8 digits. `resize` is the short side in pixels, a (width, height), or None for the native size.
    Pixels with a smaller probability than `min_confidence` are void; by class it is ``8=0.7,0.5``. `tile` and
    `overlap` are in pixels, or None without tiles. `map` is in indices, ``8=2,12=2,*=0``. `network_card` has
    the normalisation where it is another one than ImageNet's. Class names shape no labels: `class_names` has
    those with which 0.2 began the directory, because they are in the fingerprint of its records (see
    `recorded_class_names`); it is None in every other directory.
    """

    backbone: str
    weights: str
    resize: int | tuple[int, int] | None
    precision: str
    kernels: str
    class_names: tuple[str, ...] | None = None
    min_confidence: float | str = 0.0
    tile: int | None = None
    overlap: int | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    stretch: bool = False
    alpha: str | None = None
    map: str | None = None
    min_region: int = 0
    network_card: Mapping[str, list[float]] | None = None

    def fingerprint(self) -> str:
        """Return 16 hex digits of the hash of these settings."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()[:16]

    def as_json(self) -> dict[str, Any]:
        """Return the settings under the names of their options."""
        return {
            "backbone": self.backbone,
            "weights": self.weights,
            "resize": _resize_json(self.resize),
            "precision": self.precision,
            "kernels": self.kernels,
            "class_names": list(self.class_names) if self.class_names is not None else None,
            "min_confidence": self.min_confidence,
            "tile": self.tile if self.tile is not None else "none",
            "overlap": self.overlap if self.overlap is not None else "none",
            "scales": list(self.scales),
            "flip": self.flip,
            **{
                name: value
                for name, default in LATER_OPTIONS.items()
                if (value := getattr(self, name)) != default
            },
        }


@dataclass(frozen=True)
class RequestedSettings:
    """The settings of an output directory: those that shape labels, and those that name outputs."""

    labels: LabelSettings
    keep_extension: bool = False
    weights_names: Mapping[str, str] = field(default_factory=dict)
    """What weights are called in messages, by their hash as in `LabelSettings`."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """Where settings come from, by their names, where that is not their option."""

    def as_json(self) -> dict[str, Any]:
        """Return all settings under the names of their options."""
        return {**self.labels.as_json(), "keep_extension": self.keep_extension}

    def save(
        self, output: OutputStore, weights_sha256: str | None, checkpoint: Mapping[str, Any] | None = None
    ) -> None:
        """Write the settings file.

        The weights' hash is None when it is not known yet. `checkpoint` says where in their file the network
        was, where that is worth saying.
        """
        content = {
            SETTINGS_MARK: SCHEMA,
            "labels": self.labels.as_json(),
            "names": {"keep_extension": self.keep_extension},
            "fingerprint": self.labels.fingerprint(),
            "weights_sha256": weights_sha256,
            **({"checkpoint": checkpoint} if checkpoint else {}),
        }
        output.write_text(SETTINGS_FILE, json.dumps(content, indent=2) + "\n")

    def check(self, output: ReadableDirectory, fingerprints: Iterable[str]) -> bool:
        """Compare these settings with those of an output directory.

        Parameters
        ----------
        output
            The output directory; it need not exist.
        fingerprints
            The fingerprints in its journal; they are compared when the settings file is missing or damaged.

        Returns
        -------
        bool
            Whether the settings file exists and is whole; otherwise the run may write it.

        Raises
        ------
        SettingsMismatch
            They differ, or this cannot be told; the message names the settings that differ.
        """
        path = output / SETTINGS_FILE
        content = _read(path)
        if content is None:
            if any(fingerprint != self.labels.fingerprint() for fingerprint in fingerprints):
                raise SettingsMismatch(
                    f"{path}: missing or damaged, and the directory has images done with other settings. "
                    "Use another --output, or --overwrite to redo everything"
                )
            return False
        if content.get(SETTINGS_MARK) != SCHEMA:
            raise SettingsMismatch(
                f"{output} was written by another version of fcn (schema "
                f"{_text(content.get(SETTINGS_MARK))}, this one writes {SCHEMA}). "
                "Use another --output, or --overwrite to redo everything"
            )
        self._compare(output, {**_mapping(content.get("labels")), **_mapping(content.get("names"))})
        return True

    def _compare(self, output: ReadableDirectory, recorded: dict[str, Any]) -> None:
        requested = self.as_json()
        recorded, requested = LATER_OPTIONS | recorded, LATER_OPTIONS | requested
        differing = [name for name in requested if recorded.get(name) != requested[name]]
        if differing:
            texts = [
                f"{self.origins.get(name) or '--' + name.replace('_', '-')}: "
                f"{self._written(name, recorded.get(name))} before, "
                f"{self._written(name, requested[name])} now"
                for name in differing
            ]
            raise SettingsMismatch(
                f"{output} was written with other settings: {'; '.join(texts)}. "
                "Use another --output, or --overwrite to redo everything"
            )

    def _written(self, name: str, value: object) -> str:
        """Return a setting's value as users gave it."""
        if name == "weights" and isinstance(value, str):
            return f"{self.weights_names.get(value, 'other weights')} (sha256 {_text(value[:8])}…)"
        # The whole image without tiles is a default that has no value to give; `--resize none` is one.
        if value is None or (value == "none" and name in {"tile", "overlap"}):
            return "not given"
        if isinstance(value, bool):
            return "on" if value else "off"
        return _text(value)


def refuse_foreign(output: OutputStore, log_file: Path | None = None) -> None:
    """Raise RequestError where a run must not write: the directory holds something, and it is not ours.

    Ours has our settings, journal, lock, or what a shard without images leaves. Hidden files, ``lost+found``
    and the run's own log do not count.
    """
    try:
        content = _parsed(output / SETTINGS_FILE)
        if content is not None and SETTINGS_MARK not in content:
            raise RequestError(f"{output / SETTINGS_FILE}: not written by fcn; give another --output")
        if content is not None or _has_traces(output):
            return
        beside = {"lost+found", _name_below(output, log_file)}
        foreign = next((n for n in output.contents() if n[:1] != "." and n not in beside), None)
    except OSError:
        # Whoever reads or writes there says why that is not possible.
        return
    if foreign is not None:
        raise RequestError(
            f"{output}: holds files that fcn did not write ({foreign}); give a new or an empty --output"
        )


def _has_traces(output: OutputStore) -> bool:
    names = output.top_names()
    if any(name == LOCK_FILE or name.startswith(f"{LOCK_FILE}.") for name in names):
        return True
    # All that a shard without images leaves.
    if any(RunFile.read(output, shard) is not None for shard, _ in shards_with(names, RUN_FILE)):
        return True
    journals = [name for _, name in shards_with(names, JOURNAL_FILE)]
    journals += [JOURNAL_FILE] if JOURNAL_FILE in names else []
    return any(_is_journal(output / name) for name in journals)


def _is_journal(path: ReadableFile) -> bool:
    """Say whether a file is a journal: others have files of that name, too."""
    try:
        # It may be large.
        if isinstance(path, LocalFile):
            start = files.read_start(path.store.safe_path(path.name))
        else:
            start = path.read_bytes()
    except OSError:
        return False
    return any(line.startswith(b'{"image": ') and b'"fingerprint": ' in line for line in start.split(b"\n"))


def _name_below(output: OutputStore, path: Path | None) -> str | None:
    """Return the name, in a directory, of what a path is or lies in."""
    top, real = os.path.realpath(str(output)), os.path.realpath(path or "")
    return os.path.relpath(real, top).split(os.sep)[0] if path and files.is_within(real, top) else None


def recorded_class_names(output: ReadableDirectory) -> tuple[str, ...] | None:
    """Return the class names that are part of an output directory's fingerprint; see `LabelSettings`."""
    try:
        names = _mapping((_read(output / SETTINGS_FILE) or {}).get("labels")).get("class_names")
    except RequestError:
        return None
    return tuple(map(str, names)) if isinstance(names, list) else None


def has_other_schema(output: ReadableDirectory) -> bool:
    """Say whether another version of fcn, with other records, wrote an output directory."""
    content = _read(output / SETTINGS_FILE)
    return content is not None and content.get(SETTINGS_MARK, SCHEMA) != SCHEMA


def require_output_directory(output: ReadableDirectory) -> None:
    """Check that a place is an output directory that this version of fcn can read.

    Raises
    ------
    RequestError
        It is not; the message says what to give.
    """
    content = _read(output / SETTINGS_FILE)
    if content is None or SETTINGS_MARK not in content:
        missing = isinstance(output, Path | LocalStore) and not Path(str(output)).is_dir()
        reason = "no such directory" if missing else "not an output directory of fcn"
        raise RequestError(f"{output}: {reason}; give the --output of an fcn segment command")
    if content[SETTINGS_MARK] != SCHEMA:
        raise RequestError(f"{output}: written by another version of fcn; use that version to read it")


def read_fingerprint(output: ReadableDirectory) -> str | None:
    """Return the fingerprint of an output directory's settings, or None when its file has none."""
    fingerprint = (_read(output / SETTINGS_FILE) or {}).get("fingerprint")
    return fingerprint if isinstance(fingerprint, str) else None


def read_rendering(output: ReadableDirectory) -> Rendering:
    """Return how the images of an output directory became RGB, as far as its settings say it."""
    labels = _mapping((_read(output / SETTINGS_FILE) or {}).get("labels"))
    alpha = labels.get("alpha")
    return Rendering(labels.get("stretch") is True, alpha if alpha in {"use", "ignore"} else None)


def _read(path: ReadableFile) -> dict[str, Any] | None:
    """Return the content of a settings file, or None when it is missing or damaged.

    Raises
    ------
    RequestError
        It is there and cannot be read.
    """
    try:
        return _parsed(path)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror}); use another --output") from None


def _parsed(path: ReadableFile) -> dict[str, Any] | None:
    """Return the content as `_read` does; raise OSError where it cannot be read."""
    try:
        return _mapping(files.read_small_json(path))
    except (FileNotFoundError, NotADirectoryError, files.UnfitFile, ValueError):
        return None


def _resize_json(resize: int | tuple[int, int] | None) -> object:
    if resize is None:
        return "none"
    return list(resize) if isinstance(resize, tuple) else resize


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items())
    parts = value if isinstance(value, list) else [value]
    text = ",".join(f"{part:g}" if isinstance(part, float) else str(part) for part in parts)
    return text if len(text) <= 40 else text[:37] + "..."

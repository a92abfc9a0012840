"""Checkpoint files to clean state dicts, without ever running what is in them."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common.errors import WeightsError
from .weights import WeightsFile

if TYPE_CHECKING:
    from torch import Tensor


def load_state_dict(file: WeightsFile) -> dict[str, Tensor]:
    """Load a checkpoint's state dict, on the CPU, in float32.

    The bytes that are loaded are those whose hash is compared: what a run records is what made its masks.

    Takes a plain state dict and torchvision's training checkpoints (``{"model": …, "args": Namespace}``);
    a ``module.`` prefix is dropped, and so is the auxiliary head.

    Raises
    ------
    WeightsError
        The file is not the one that was hashed, holds code, is no checkpoint, or has values that are not
        finite.
    """
    import torch

    data = _read(file)
    try:
        # torch warns of pickle protocols it was not tested with; if it cannot read one it says so.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(data, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"asks to run {named[1]}" if named else "holds more than weights"
        raise WeightsError(
            f"{file.path}: refused, it {what}; a checkpoint must be a state dict (save model.state_dict())"
        ) from None
    except Exception as error:  # noqa: BLE001 - torch.load raises anything on broken data
        raise WeightsError(
            f"{file.path}: not a checkpoint that PyTorch can load ({_first_line(error)})"
        ) from None
    return _clean(content, file.path)


def _read(file: WeightsFile) -> io.BytesIO:
    """Return the bytes of a file, which must have its hash."""
    try:
        data = file.path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{file.path}: cannot be read ({error.strerror})") from None
    except MemoryError:
        raise WeightsError(f"{file.path}: not enough memory to read it") from None
    digest = hashlib.sha256(data).hexdigest()
    if digest != file.sha256:
        raise WeightsError(
            f"{file.path}: was changed while this run started (its sha256 began with {file.sha256[:8]}, "
            f"now with {digest[:8]}); run again"
        )
    return io.BytesIO(data)


def _clean(content: Any, path: Path) -> dict[str, Tensor]:
    import torch

    state = content
    for key in ("model", "state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state:
        raise WeightsError(f"{path}: no state dict in it; save model.state_dict()")
    cleaned = {}
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise WeightsError(f"{path}: not a state dict, {key!r} holds a {type(value).__name__}")
        name = key.removeprefix("module.")
        if name.startswith("aux_classifier."):
            continue
        if value.is_floating_point():
            value = value.float()
            if not torch.isfinite(value).all():
                raise WeightsError(
                    f"{path}: {name} holds values that are not finite; the training went wrong"
                )
        cleaned[name] = value
    return cleaned


def _first_line(error: Exception) -> str:
    with contextlib.suppress(IndexError):
        return str(error).splitlines()[0][:200]
    return type(error).__name__

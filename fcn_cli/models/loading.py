"""Load a checkpoint into a model, without ever running code from the file."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.errors import RequestError, WeightsError
from ..common.wording import counted
from .registry import MAX_CLASSES, Architecture
from .weights import WeightsFile

if TYPE_CHECKING:
    from torch import Tensor, nn


def load_state_dict(file: WeightsFile) -> dict[str, Tensor]:
    """Load a checkpoint's state dict, on the CPU, in float32.

    The same bytes are hashed and loaded, so the hash that a run records is that of the weights it used.

    A checkpoint is a plain state dict, or torchvision's training checkpoint (``{"model": …, "args":
    Namespace}``). A ``module.`` prefix and the auxiliary head are dropped.

    Raises
    ------
    WeightsError
        The file has changed since it was hashed, contains code, is not a checkpoint, or has values that are
        not finite.
    """
    import torch

    data = _read(file)
    try:
        # torch warns about untested pickle protocols; if it cannot read one, it raises an error.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(data, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch.load raises anything on broken data
        raise WeightsError(f"{file.path}: {_why_refused(data, error)}") from None
    return _clean(content, file.path)


_LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How the files of ``torch.save`` begin that are no zip archives."""

_OTHER_FILES = (
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer; fetch the file itself with git lfs pull"),
    (re.compile(rb"\x1f\x8b"), "compressed with gzip; unpack it"),
    (re.compile(rb"\x93NUMPY"), "a NumPy array; save model.state_dict() with torch.save"),
    (re.compile(rb"\x89HDF"), "an HDF5 file, as Keras writes; a checkpoint of PyTorch is needed"),
    (re.compile(rb"(\xef\xbb\xbf)?\s*<"), "a web page; download the file itself"),
    (
        re.compile(rb".{8}\{", re.DOTALL),
        "a safetensors file; save what safetensors.torch.load_file returns with torch.save",
    ),
)
"""How files begin that people take for checkpoints, and what they are."""


def _why_refused(data: io.BytesIO, error: Exception) -> str:
    """Return why torch.load has refused a file. What the file is says more than the error."""
    start, size = data.getvalue()[:64], len(data.getbuffer())
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    damaged = f"truncated or damaged ({counted(size, 'byte', grouped=True)}); copy it again"
    if start.startswith(b"PK"):
        finding = _zip_finding(data)
        if finding is not None:
            return finding or damaged
    elif not start.startswith(_LEGACY_START) and not named:
        what = next((what for pattern, what in _OTHER_FILES if pattern.match(start)), "")
        return f"no PyTorch file{f' but {what}' if what else ''}" if size else "the file is empty"
    elif not isinstance(error, pickle.UnpicklingError):
        return damaged
    if named or isinstance(error, pickle.UnpicklingError):
        finding = f"asks to run {named[1]}" if named else "contains more than weights"
        return f"refused, it {finding}; a checkpoint must be a state dict (save model.state_dict())"
    return f"not a checkpoint that PyTorch can load ({_first_line(error)})"


def _zip_finding(data: io.BytesIO) -> str | None:
    """Return what a zip archive is if it is no checkpoint, empty when it is damaged; else None."""
    try:
        with zipfile.ZipFile(data) as archive:
            members = archive.infolist()
            # torch.save compresses nothing; what is larger unpacked may take forever to unpack.
            is_small = sum(member.file_size for member in members) <= len(data.getbuffer())
            if not is_small or archive.testzip() is not None:
                return ""
            names = {name.partition("/")[2] for name in archive.namelist()}
    except Exception:  # noqa: BLE001 - zipfile raises anything on broken data
        return ""
    if "constants.pkl" in names:
        return "a TorchScript archive, not a checkpoint; save model.state_dict()"
    return None if "data.pkl" in names else "no PyTorch file but a zip archive of something else"


def _read(file: WeightsFile) -> io.BytesIO:
    """Return the bytes of a file; raises WeightsError unless they have its hash."""
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
        raise WeightsError(f"{path}: contains no state dict; save model.state_dict()")
    cleaned = {}
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise WeightsError(f"{path}: not a state dict, {key!r} is a {type(value).__name__}")
        name = key.removeprefix("module.")
        if name.startswith("aux_classifier."):
            continue
        if value.is_floating_point():
            value = value.float()
            if not torch.isfinite(value).all():
                raise WeightsError(f"{path}: {name} has values that are not finite; the training went wrong")
        cleaned[name] = value
    return cleaned


def _first_line(error: Exception) -> str:
    with contextlib.suppress(IndexError):
        return str(error).splitlines()[0][:200]
    return type(error).__name__


@dataclass(frozen=True)
class LoadedModel:
    """A model with its weights, in eval mode on the CPU in float32, and its class names."""

    backbone: Architecture
    model: nn.Module
    class_names: tuple[str, ...]


def load(backbone: Architecture, file: WeightsFile, class_names: Sequence[str] | None = None) -> LoadedModel:
    """Build a model and load a checkpoint into it; the classifier's shape determines the number of classes.

    Parameters
    ----------
    backbone
        The architecture of the checkpoint.
    file
        A verified weights file.
    class_names
        One name per class, or None for ``class_0``, ``class_1``, ….

    Raises
    ------
    WeightsError
        The checkpoint has missing or unexpected entries, entries of another shape, or fewer than 2 or more
        than 255 classes.
    RequestError
        The number of `class_names` is not the number of classes.
    """
    state = load_state_dict(file)
    classes = _class_count(state, file)
    names = tuple(class_names) if class_names is not None else tuple(f"class_{i}" for i in range(classes))
    if len(names) != classes:
        raise RequestError(
            f"--class-names: {counted(len(names), 'name')} for the {classes} classes of {file.path}"
        )
    model = backbone.build(classes)
    _refuse_mismatch(model, state, f"{file.path}: does not fit {backbone.name}")
    model.load_state_dict(state, strict=False)
    return LoadedModel(backbone, model.eval(), names)


_LAST_LAYER = "classifier.4.weight"


def _prefix(state: dict[str, Tensor]) -> str:
    """Return what the keys begin with where another module holds the network, or nothing."""
    return next((key.removesuffix(_LAST_LAYER) for key in state if key.endswith(f".{_LAST_LAYER}")), "")


def _class_count(state: dict[str, Tensor], file: WeightsFile) -> int:
    final = state.get(_LAST_LAYER)
    if final is None and (prefix := _prefix(state)):
        raise WeightsError(
            f"{file.path}: the keys begin with '{prefix}'; save the network inside, or its entries without "
            f"that: {{key.removeprefix('{prefix}'): value for key, value in state_dict.items()}}"
        )
    if final is None or final.ndim != 4:
        raise WeightsError(f"{file.path}: has no FCN classifier ({_LAST_LAYER} is missing)")
    if not 2 <= len(final) <= MAX_CLASSES:
        raise WeightsError(
            f"{file.path}: has {counted(len(final), 'class', 'classes')}; 2 to {MAX_CLASSES} are supported"
        )
    return len(final)


def _refuse_mismatch(model: nn.Module, state: dict[str, Tensor], problem: str) -> None:
    # BatchNorm's batch counters do not affect predictions, and some checkpoints omit them.
    own = {k: v for k, v in model.state_dict().items() if not k.endswith(".num_batches_tracked")}
    given = {k: v for k, v in state.items() if not k.endswith(".num_batches_tracked")}
    if missing := sorted(own.keys() - given.keys()):
        raise WeightsError(f"{problem}: {_first_names(missing)} missing")
    if unexpected := sorted(given.keys() - own.keys()):
        raise WeightsError(f"{problem}: {_first_names(unexpected)} unexpected")
    if wrong := sorted(k for k in own if own[k].shape != given[k].shape):
        shapes = f"{tuple(given[wrong[0]].shape)}, expected {tuple(own[wrong[0]].shape)}"
        raise WeightsError(f"{problem}: {_first_names(wrong)} of another shape ({shapes})")


def _first_names(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more

"""Weights files: finding and verifying official ones, loading a checkpoint without running code from it.

Directories are searched in this order: ``FCN_WEIGHTS_DIR``, torch.hub's checkpoint directory. Only this
module and `download` read the environment, as torch.hub and urllib do.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common import files
from ..common.errors import RequestError, WeightsError
from ..common.wording import counted
from .registry import MAX_CLASSES, Architecture, OfficialWeights

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class WeightsFile:
    """A weights file that has just been hashed, and verified if its hash is known."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class LoadedModel:
    """A model with its weights, in eval mode on the CPU in float32, and its class names."""

    backbone: Architecture
    model: nn.Module
    class_names: tuple[str, ...]


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hex.

    Raises
    ------
    WeightsError
        The file cannot be read.
    """
    try:
        with open(files.open_regular(path, follow=True), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None


def search_directories() -> list[Path]:
    """Return the directories that are searched for weights, in order; downloads go to the last one."""
    own = os.environ.get("FCN_WEIGHTS_DIR")
    return [*([Path(own).expanduser()] if own else []), hub_directory()]


def hub_directory() -> Path:
    """Return torch.hub's checkpoint directory, by its rules (``TORCH_HOME``, ``XDG_CACHE_HOME``)."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints"


def download_url(official: OfficialWeights) -> str:
    """Return the URL to download from: the official one, or the mirror's."""
    mirror = os.environ.get("FCN_WEIGHTS_MIRROR")
    return f"{mirror.rstrip('/')}/{official.file_name}" if mirror else official.url


def cached(official: OfficialWeights) -> Path | None:
    """Return the first file of that name in the search directories, not verified, or None."""
    return next(
        (path for directory in search_directories() if (path := directory / official.file_name).is_file()),
        None,
    )


def verify(path: Path, sha256_prefix: str) -> WeightsFile:
    """Hash a weights file and compare the hash with the expected prefix.

    Raises
    ------
    WeightsError
        The file cannot be read or has another hash; the message names the file and the fix.
    """
    digest = sha256_of(path)
    if not digest.startswith(sha256_prefix):
        raise WeightsError(
            f"{path}: damaged, its sha256 starts with {digest[:8]}, not {sha256_prefix[:8]}; "
            "delete the file and run again (or run `fcn weights fetch`)"
        )
    return WeightsFile(path, digest)


def load(backbone: Architecture, file: WeightsFile, class_names: Sequence[str] | None = None) -> LoadedModel:
    """Build a model and load a checkpoint into it; the classifier's shape determines the number of classes.

    A checkpoint is a plain state dict, or torchvision's training checkpoint (``{"model": …, "args":
    Namespace}``). A ``module.`` prefix and the auxiliary head are dropped. The same bytes are hashed and
    loaded, so the hash that a run records is that of the weights it used.

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
        The file has changed since it was hashed, contains code, or is not a checkpoint; entries are missing,
        unexpected, of another shape, no plain floating-point tensors, or not finite; or there are fewer than
        2 or more than 255 classes.
    RequestError
        The number of `class_names` is not the number of classes.
    """
    import torch

    state = _state_of(_unpickled(file), file.path)
    classes = _class_count(state, file.path)
    names = tuple(class_names) if class_names is not None else tuple(f"class_{i}" for i in range(classes))
    if len(names) != classes:
        raise RequestError(
            f"--class-names: {counted(len(names), 'name')} for the {classes} classes of {file.path}"
        )
    # Without memory: it gets that of the checkpoint.
    with torch.device("meta"):
        model = backbone.build(classes)
    own = model.state_dict()
    _refuse_mismatch(own, state, f"{file.path}: does not fit {backbone.name}")
    values = {name: _numbers(state[name], name, file.path) for name in own if name in state}
    # Not by zeros_like, which imports sympy for a tensor without memory.
    counters = {
        name: torch.zeros(own[name].shape, dtype=own[name].dtype) for name in own.keys() - state.keys()
    }
    model.load_state_dict(values | counters, assign=True)
    return LoadedModel(backbone, model.eval(), names)


def _unpickled(file: WeightsFile) -> Any:
    """Return what a file holds; of its tensors, nothing but the type is known."""
    import torch

    data = _read(file)
    if data.getvalue().startswith(b"PK") and (finding := _zip_finding(data)) is not None:
        raise WeightsError(f"{file.path}: {finding}")
    try:
        # torch warns about untested pickle protocols; if it cannot read one, it raises an error.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(data, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch.load raises anything on broken data
        raise WeightsError(f"{file.path}: {_why_refused(data, error)}") from None


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
    if start.startswith(b"PK"):
        if _is_damaged(data):
            return _damaged(data)
    elif not start.startswith(_LEGACY_START) and not named:
        what = next((what for pattern, what in _OTHER_FILES if pattern.match(start)), "")
        return f"no PyTorch file{f' but {what}' if what else ''}" if size else "the file is empty"
    elif not isinstance(error, pickle.UnpicklingError):
        return _damaged(data)
    if named or isinstance(error, pickle.UnpicklingError):
        finding = f"asks to run {_short(named[1])}" if named else "contains more than weights"
        return f"refused, it {finding}; a checkpoint must be a state dict (save model.state_dict())"
    return f"not a checkpoint that PyTorch can load ({_first_line(error)})"


def _damaged(data: io.BytesIO) -> str:
    return f"truncated or damaged ({counted(len(data.getbuffer()), 'byte', grouped=True)}); copy it again"


def _zip_finding(data: io.BytesIO) -> str | None:
    """Return why a zip archive is not loaded: what it is instead of a checkpoint, or that it is damaged."""
    try:
        with zipfile.ZipFile(data) as archive:
            members = archive.infolist()
            names = {name.partition("/")[2] for name in archive.namelist()}
    except Exception:  # noqa: BLE001 - zipfile raises anything on broken data
        return _damaged(data)
    finally:
        data.seek(0)
    if "constants.pkl" in names:
        return "a TorchScript archive, not a checkpoint; save model.state_dict()"
    if "data.pkl" not in names:
        return "no PyTorch file but a zip archive of something else"
    # torch.save compresses nothing, and no two members share bytes: so it takes no more memory than the file.
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        return (
            "compressed, which files of torch.save are not; unpack it and make a zip archive that only stores"
        )
    return _damaged(data) if sum(member.file_size for member in members) > len(data.getbuffer()) else None


def _is_damaged(data: io.BytesIO) -> bool:
    """Say whether a member of a zip archive, of which `_zip_finding` says nothing, has a wrong checksum."""
    try:
        with zipfile.ZipFile(data) as archive:
            return archive.testzip() is not None
    except Exception:  # noqa: BLE001 - zipfile raises anything on broken data
        return True


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _state_of(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the entries of a state dict, all of them dense floating-point tensors on the CPU."""
    state = content
    for key in ("model", "state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state:
        raise WeightsError(f"{path}: contains no state dict; save model.state_dict()")
    entries = {}
    for key, value in state.items():
        if not isinstance(key, str):
            raise WeightsError(f"{path}: not a state dict, a key in it is a {type(key).__name__}")
        name = key.removeprefix("module.")
        # Counters of batches change no prediction, and some checkpoints omit them.
        if name.startswith("aux_classifier.") or name.endswith(".num_batches_tracked"):
            continue
        if (kind := _unfit_kind(value)) is not None:
            raise WeightsError(
                f"{path}: {_short(name)} is {kind}; a checkpoint has plain tensors of float16, bfloat16, "
                "float32 or float64"
            )
        entries[name] = value
    return entries


def _unfit_kind(value: object) -> str | None:
    """Return what a value is where it is no dense floating-point tensor in memory."""
    import torch

    if not isinstance(value, torch.Tensor):
        return f"a {type(value).__name__}"
    if type(value) not in {torch.Tensor, torch.nn.Parameter}:
        return f"a {type(value).__name__}"
    kinds = {
        "a sparse tensor": value.layout is not torch.strided,
        "a nested tensor": value.is_nested,
        "a quantised tensor": value.is_quantized,
        "a tensor without content (device meta)": value.device.type != "cpu",
        "a negated view": value.is_neg(),
        f"of {str(value.dtype).removeprefix('torch.')}": value.dtype
        not in {torch.float16, torch.bfloat16, torch.float32, torch.float64},
    }
    return next((kind for kind, is_so in kinds.items() if is_so), None)


_LAST_LAYER = "classifier.4.weight"


def _class_count(state: dict[str, Tensor], path: Path) -> int:
    final = state.get(_LAST_LAYER)
    # Where another module holds the network, its keys begin with something.
    prefix = next((key.removesuffix(_LAST_LAYER) for key in state if key.endswith(f".{_LAST_LAYER}")), "")
    if final is None and prefix:
        prefix = _short(prefix)
        raise WeightsError(
            f"{path}: the keys begin with '{prefix}'; save the network inside, or its entries without "
            f"that: {{key.removeprefix('{prefix}'): value for key, value in state_dict.items()}}"
        )
    if final is None or final.ndim != 4:
        raise WeightsError(f"{path}: has no FCN classifier ({_LAST_LAYER} is missing)")
    if not 2 <= len(final) <= MAX_CLASSES:
        raise WeightsError(
            f"{path}: has {counted(len(final), 'class', 'classes')}; 2 to {MAX_CLASSES} are supported"
        )
    return len(final)


def _refuse_mismatch(own: Mapping[str, Tensor], given: Mapping[str, Tensor], problem: str) -> None:
    """Compare names, shapes and the memory behind them, before anything is computed with the numbers."""
    wanted = {name: value for name, value in own.items() if not name.endswith(".num_batches_tracked")}
    if missing := sorted(wanted.keys() - given.keys()):
        raise WeightsError(f"{problem}: {_first_names(missing)} missing")
    if unexpected := sorted(given.keys() - wanted.keys()):
        raise WeightsError(f"{problem}: {_first_names(unexpected)} unexpected")
    if wrong := sorted(name for name in wanted if wanted[name].shape != given[name].shape):
        shapes = f"{_short(str(tuple(given[wrong[0]].shape)))}, expected {tuple(wanted[wrong[0]].shape)}"
        raise WeightsError(f"{problem}: {_first_names(wrong)} of another shape ({shapes})")
    for name, value in given.items():
        if value.untyped_storage().nbytes() < value.numel() * value.element_size() or 0 in value.stride():
            raise WeightsError(f"{problem}: numbers of {name} share memory (an expanded tensor)")


def _first_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(_short, names[:3])) + more


def _short(name: str) -> str:
    """Return a name from a file as a message shows it: no name of a network's is longer."""
    return name if len(name) <= 100 else f"{name[:70]}…{name[-20:]}"


def _numbers(value: Tensor, name: str, path: Path) -> Tensor:
    """Return an entry in float32 and in PyTorch's own order of memory."""
    import numpy as np

    numbers = value.detach().float().contiguous()
    # By NumPy: PyTorch's check takes a hundred times as long.
    if not np.isfinite(numbers.numpy()).all():
        raise WeightsError(f"{path}: {name} has values that are not finite; the training went wrong")
    return numbers

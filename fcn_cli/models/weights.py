"""Weights files: finding and verifying official ones, loading a checkpoint without running code from it.

Directories are searched in this order: ``FCN_WEIGHTS_DIR``, torch.hub's checkpoint directory. Only this
module and `download` read the environment, as torch.hub and urllib do.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..common import files
from ..common.errors import RequestError, WeightsError
from ..common.wording import counted
from . import checkpoint
from .card import IMAGENET, Normalisation
from .registry import Architecture, OfficialWeights

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class WeightsFile:
    """A weights file that has just been hashed, and verified if its hash is known."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class LoadedModel:
    """A model with its weights, in eval mode on the CPU in float32, its class names, and where it was.

    `background` is the index of the class that is the background, or None.
    """

    backbone: Architecture
    model: nn.Module
    class_names: tuple[str, ...]
    origin: checkpoint.Origin = field(default_factory=checkpoint.Origin)
    background: int | None = None
    normalisation: Normalisation = IMAGENET


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


def load(
    backbone: Architecture,
    file: WeightsFile,
    class_names: Sequence[str] | None = None,
    names_from: str = "--class-names",
) -> LoadedModel:
    """Build a model and load a checkpoint into it; the classifier's shape determines the number of classes.

    A checkpoint is a state dict, in whatever trainers wrap it (see `checkpoint.networks`). The same bytes are
    hashed and loaded, so the hash that a run records is that of the weights it used.

    Parameters
    ----------
    backbone
        The architecture of the checkpoint.
    file
        A verified weights file.
    class_names
        One name per class, or None for ``class_0``, ``class_1``, ….
    names_from
        Where the names are from, for messages.

    Raises
    ------
    WeightsError
        The file has changed since it was hashed, contains code, or is not a checkpoint; two networks in it
        fit; or entries are missing, unexpected, of another shape, no plain floating-point tensors, or not
        finite.
    RequestError
        The number of `class_names` is not the number of classes.
    """
    return load_one_of(backbone, networks_in(file), file.path, class_names, names_from)


def networks_in(file: WeightsFile) -> list[checkpoint.Network]:
    """Return every FCN in a checkpoint, at least one; raises what `load` does."""
    data = _read(file)
    try:
        return checkpoint.networks(checkpoint.read(data))
    except WeightsError as error:
        raise WeightsError(f"{file.path}: {error}") from None


def load_one_of(
    backbone: Architecture,
    networks: Sequence[checkpoint.Network],
    path: Path,
    class_names: Sequence[str] | None = None,
    names_from: str = "--class-names",
) -> LoadedModel:
    """Load the one of the networks in a checkpoint that fits; parameters and errors are those of `load`."""
    import torch

    network, model = _fitting(backbone, networks, path)
    entries = {name: _numbers(value, name, path) for name, value in network.entries.items()}
    if network.origin.has_one_channel:
        for name in checkpoint.LAST_LAYER:
            entries[name] = torch.cat([torch.zeros_like(entries[name]), entries[name]])
    classes = len(entries[checkpoint.LAST_LAYER[0]])
    names = tuple(class_names) if class_names is not None else tuple(f"class_{i}" for i in range(classes))
    if len(names) != classes:
        raise RequestError(f"{names_from}: {counted(len(names), 'name')} for the {classes} classes of {path}")
    # Not by zeros_like, which imports sympy for a tensor without memory.
    counters = {
        name: torch.zeros(value.shape, dtype=value.dtype)
        for name, value in model.state_dict().items()
        if name not in entries
    }
    model.load_state_dict(entries | counters, assign=True)
    return LoadedModel(backbone, model.eval(), names, network.origin)


def _fitting(
    backbone: Architecture, networks: Sequence[checkpoint.Network], path: Path
) -> tuple[checkpoint.Network, nn.Module]:
    """Return the network that fits, and a model for it without memory."""
    fitting, misfits = [], []
    for network in networks:
        place = network.origin.place
        try:
            fitting.append((network, checkpoint.fit(backbone, network)))
        except checkpoint.Misfit as misfit:
            misfits.append(f"{path}: {f'in {place!r}: ' if place else ''}{misfit}")
    if not fitting:
        raise WeightsError(misfits[0])
    if len(fitting) > 1:
        one, other, *_ = (repr(network.origin.place or "the top") for network, _ in fitting)
        raise WeightsError(
            f"{path}: holds two networks that fit {backbone.name}, {one} and {other}; save the one that you "
            "want by itself"
        )
    return fitting[0]


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


def _numbers(value: Tensor, name: str, path: Path) -> Tensor:
    """Return an entry in float32 and in PyTorch's own order of memory."""
    import numpy as np

    numbers = value.detach().float().contiguous()
    # By NumPy: PyTorch's check takes a hundred times as long.
    if not np.isfinite(numbers.numpy()).all():
        raise WeightsError(f"{path}: {name} has values that are not finite; the training went wrong")
    return numbers

"""Checkpoints: read a file without running code from it, and find the network in it."""

from __future__ import annotations

import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..common.errors import WeightsError
from ..common.wording import counted
from .registry import MAX_CLASSES, Architecture

if TYPE_CHECKING:
    from torch import Tensor, nn

WRAPPERS = ("model", "state_dict", "model_state_dict", "model_ema", "ema", "module", "net")
"""Under which keys trainers keep a state dict beside the rest."""

LAST_LAYER = ("classifier.4.weight", "classifier.4.bias")
"""The entries whose first dimension is the number of classes."""

_MOST_NAMES = 100
_MOST_NETWORKS = 20
_SAFETENSORS = re.compile(rb"(?!\x1f\x8b).{4}\0{4}\{", re.DOTALL)
"""How safetensors files begin: the length of a header, and JSON. (Files of gzip may look alike.)"""


@dataclass(frozen=True)
class Origin:
    """Where in a checkpoint a network was.

    `wrappers` are the keys that lead to the state dict, `prefix` is what was before each entry's name, and
    `others` are the names of entries without it, which belong to something else. A network with one channel
    counts as one with two classes.
    """

    wrappers: tuple[str, ...] = ()
    prefix: str = ""
    others: tuple[str, ...] = ()
    has_one_channel: bool = False

    @property
    def place(self) -> str:
        """The way to the network, in one name; empty for a plain state dict."""
        return ".".join([*self.wrappers, *([_short(self.prefix[:-1])] if self.prefix else [])])

    def described(self) -> str:
        """Return in words what was done to get at the network; empty for a plain state dict."""
        said = []
        if self.wrappers:
            said.append(f"unwrapped {' in '.join(map(repr, reversed(self.wrappers)))}")
        if self.prefix:
            said.append(f"stripped the prefix '{_short(self.prefix)}'")
        if self.others:
            said.append(f"left out {_first_names(self.others)}, not part of the network")
        if self.has_one_channel:
            said.append("read its one output x as two classes with the logits 0 and x")
        return "; ".join(said)

    def as_json(self) -> dict[str, Any]:
        """Return the same for the settings file; empty for a plain state dict."""
        found = {
            "unwrapped": list(self.wrappers),
            "prefix": _short(self.prefix),
            "left_out": [_short(name) for name in self.others[:_MOST_NAMES]],
            "one_channel": self.has_one_channel,
        }
        return {key: value for key, value in found.items() if value}


@dataclass(frozen=True)
class Network:
    """A network in a checkpoint: its entries under their own names, and where they were."""

    entries: Mapping[str, Tensor]
    origin: Origin

    def described(self) -> str:
        """Return in words how many numbers it has, in which types, and where it was."""
        import torch

        tensors = [value for value in self.entries.values() if isinstance(value, torch.Tensor)]
        types = sorted({str(value.dtype).removeprefix("torch.") for value in tensors})
        place = f", in '{self.origin.place}'" if self.origin.place else ""
        numbers = counted(sum(value.numel() for value in tensors), "number", grouped=True)
        return f"{numbers} in {' and '.join(types)}{place}"


class Misfit(Exception):
    """A network of a checkpoint is not one of the architecture; the text says what is wrong with it."""


def read(data: io.BytesIO) -> Any:
    """Return what a file holds; of its tensors, nothing but the type is known.

    Raises
    ------
    WeightsError
        The file is no checkpoint, is damaged, or asks to run code.
    """
    import torch

    start = data.getbuffer()[:16].tobytes()
    if _SAFETENSORS.match(start):
        return _safetensors(data)
    if start.startswith(b"PK") and (finding := _zip_finding(data)) is not None:
        raise WeightsError(finding)
    try:
        # torch warns about untested pickle protocols; if it cannot read one, it raises an error.
        with torch.serialization.safe_globals(_INERT), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(data, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch.load raises anything on broken data
        raise WeightsError(_why_refused(data, error)) from None


def _safetensors(data: io.BytesIO) -> Any:
    import safetensors.torch

    try:
        return safetensors.torch.load(data.getvalue())
    except Exception as error:  # noqa: BLE001 - types that PyTorch lacks are a KeyError
        raise WeightsError(f"not a whole safetensors file ({_first_line(error)})") from None


class _Inert:
    """Stands for what trainers save beside the weights, and holds nothing of it: none of its code runs."""

    def __init__(self, *arguments: object, **named: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


_INERT: list[Any] = [
    (_Inert, name)
    for name in (
        "argparse.Namespace",
        "numpy.dtype",
        "numpy.ndarray",
        *(
            f"numpy.{core}.multiarray.{name}"
            for core in ("core", "_core")
            for name in ("scalar", "_reconstruct")
        ),
        *(
            f"{module}.{name}Path"
            for module in ("pathlib", "pathlib._local")
            for name in ("Posix", "Windows")
        ),
    )
]


def networks(content: Any) -> list[Network]:
    """Return every FCN in a checkpoint, whatever it is wrapped in and its names begin with.

    Counters of batches and the auxiliary head are left out: they change no prediction.

    Raises
    ------
    WeightsError
        There is none; the message says what is missing.
    """
    states = list(_state_dicts(content, (), set()))
    if found := [network for where, state in states for network in _networks_of(where, state)]:
        return found
    holding = [state for _, state in states if _is_state(state)]
    if not holding:
        raise WeightsError("contains no state dict; save model.state_dict()")
    _refuse_other_keys(holding[0])
    raise WeightsError(f"has no FCN classifier ({LAST_LAYER[0]} is missing)")


def _is_state(state: Mapping[Any, Any]) -> bool:
    import torch

    return any(isinstance(value, torch.Tensor) for value in state.values())


def _refuse_other_keys(state: Mapping[Any, Any]) -> None:
    other = next((key for key in state if not isinstance(key, str)), None)
    if other is not None:
        raise WeightsError(f"not a state dict, a key in it is a {type(other).__name__}")


def _state_dicts(
    content: Any, wrappers: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """Yield a mapping, and what it holds under a wrapper's key; each once: a pickle may hold itself."""
    if not isinstance(content, Mapping) or id(content) in seen:
        return
    seen.add(id(content))
    yield wrappers, content
    for name in WRAPPERS:
        yield from _state_dicts(content.get(name), (*wrappers, name), seen)


def _networks_of(wrappers: tuple[str, ...], state: Mapping[Any, Any]) -> Iterator[Network]:
    """Yield the networks in a state dict, each with what is before its last layer's name."""
    names = [key for key in state if isinstance(key, str)]
    prefixes = {
        name.removesuffix(LAST_LAYER[0]) for name in names if f".{name}".endswith(f".{LAST_LAYER[0]}")
    }
    if prefixes:
        _refuse_other_keys(state)
    if len(prefixes) > _MOST_NETWORKS:
        raise WeightsError(f"holds {len(prefixes)} networks; save the one that you want by itself")
    for prefix in sorted(prefixes):
        entries, others = {}, []
        for key, value in state.items():
            if prefix != max((each for each in prefixes if key.startswith(each)), key=len, default=None):
                others.append(key)
            elif not _is_ignored(name := key.removeprefix(prefix)):
                entries[name] = value
        # How many it has averaged is what torch.optim.swa_utils keeps beside a network.
        others = [name for name in others if name.rpartition(".")[2] != "n_averaged"]
        channels = getattr(entries[LAST_LAYER[0]], "shape", ())[:1]
        yield Network(entries, Origin(wrappers, prefix, tuple(others), has_one_channel=channels == (1,)))


def _is_ignored(name: str) -> bool:
    return name.startswith("aux_classifier.") or name.endswith(".num_batches_tracked")


def fit(backbone: Architecture, network: Network) -> nn.Module:
    """Return a model without memory that a network's entries fit: names, types and shapes.

    Raises
    ------
    Misfit
        Entries are missing, unexpected, of another shape, or no plain floating-point tensors; or there are
        no classes, or more than 255.
    """
    import torch

    for name, value in network.entries.items():
        if (kind := _unfit_kind(value)) is not None:
            raise Misfit(
                f"{_short(name)} is {kind}; a checkpoint has plain tensors of float16, bfloat16, float32 or "
                "float64"
            )
    final = network.entries[LAST_LAYER[0]]
    channels = len(final) if final.ndim else 0
    if final.ndim != 4:
        raise Misfit(f"{LAST_LAYER[0]} is no convolution's, it has {counted(final.ndim, 'dimension')}")
    if not 1 <= channels <= MAX_CLASSES:
        raise Misfit(f"has {counted(channels, 'class', 'classes')}; 2 to {MAX_CLASSES} are supported")
    # Without memory: it gets that of the checkpoint.
    with torch.device("meta"):
        model = backbone.build(channels)
        _refuse_mismatch(model.state_dict(), network.entries, f"does not fit {backbone.name}")
        return backbone.build(2) if network.origin.has_one_channel else model


def _unfit_kind(value: object) -> str | None:
    """Return what a value is where it is no dense floating-point tensor in memory."""
    import torch

    if isinstance(value, _Inert):
        return "no tensor"
    if not isinstance(value, torch.Tensor) or type(value) not in {torch.Tensor, torch.nn.Parameter}:
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


def _refuse_mismatch(own: Mapping[str, Tensor], given: Mapping[str, Tensor], problem: str) -> None:
    """Compare names, shapes and the memory behind them, before anything is computed with the numbers."""
    wanted = {name: value for name, value in own.items() if not name.endswith(".num_batches_tracked")}
    if missing := sorted(wanted.keys() - given.keys()):
        raise Misfit(f"{problem}: {_first_names(missing)} missing")
    if unexpected := sorted(given.keys() - wanted.keys()):
        raise Misfit(f"{problem}: {_first_names(unexpected)} unexpected")
    if wrong := sorted(name for name in wanted if wanted[name].shape != given[name].shape):
        shapes = f"{_short(str(tuple(given[wrong[0]].shape)))}, expected {tuple(wanted[wrong[0]].shape)}"
        raise Misfit(f"{problem}: {_first_names(wrong)} of another shape ({shapes})")
    for name, value in given.items():
        if value.untyped_storage().nbytes() < value.numel() * value.element_size() or 0 in value.stride():
            raise Misfit(f"{problem}: numbers of {name} share memory (an expanded tensor)")


def _first_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(_short, names[:3])) + more


def _short(name: str) -> str:
    """Return a name from a file as a message shows it: no name of a network's is longer."""
    return name if len(name) <= 100 else f"{name[:70]}…{name[-20:]}"


_LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How the files of ``torch.save`` begin that are no zip archives."""

_OTHER_FILES = (
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer; fetch the file itself with git lfs pull"),
    (re.compile(rb"\x1f\x8b"), "compressed with gzip; unpack it"),
    (re.compile(rb"\x93NUMPY"), "a NumPy array; save model.state_dict() with torch.save"),
    (re.compile(rb"\x89HDF"), "an HDF5 file, as Keras writes; a checkpoint of PyTorch is needed"),
    (re.compile(rb"(\xef\xbb\xbf)?\s*<"), "a web page; download the file itself"),
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
        return f"not a PyTorch file{f' but {what}' if what else ''}" if size else "the file is empty"
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
        return "a zip archive, but not a PyTorch file"
    # torch.save compresses nothing, and no two members share bytes: so it takes no more memory than the file.
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        return (
            "compressed, which files of torch.save are not; unpack it, and zip it again without compression"
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

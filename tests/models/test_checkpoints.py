"""Checkpoints as trainers write them: what `fcn weights check` says of each, and what a run takes from it."""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from fcn_cli.models import weights
from fcn_cli.models.registry import BACKBONES, BundledWeights

from ..conftest import SMALL, Fcn, MakeImages

assert isinstance(BACKBONES["efficientnet_lite0"].weights, BundledWeights)
BUNDLED = BACKBONES["efficientnet_lite0"].weights.path
FIRST = "backbone.0.0.weight"
LAST = ("classifier.4.weight", "classifier.4.bias")
State = dict[str, Any]


@functools.cache
def bundled() -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(BUNDLED, weights_only=True)
    return state


def plain() -> State:
    return dict(bundled())


def under(prefix: str) -> State:
    return {prefix + name: value for name, value in plain().items()}


def other_network() -> State:
    return {name: value for name, value in plain().items() if name != FIRST}


def filled(value: float) -> Tensor:
    return torch.full_like(bundled()[LAST[1]], value)


def averaged() -> State:
    """An average as PyTorch's own class keeps it, of a small model with the network's names."""
    count = AveragedModel(nn.Linear(1, 1)).state_dict()["n_averaged"]
    return under("module.") | {"n_averaged": count}


def one_channel() -> State:
    return plain() | {name: bundled()[name][8:9] for name in LAST}


class Code:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, ("exit 1",)


def saved(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def as_safetensors(state: State) -> bytes:
    data: bytes = safetensors.torch.save({name: value.contiguous() for name, value in state.items()})
    return data


def quantised() -> Tensor:
    return torch.quantize_per_tensor(bundled()[FIRST].float(), 1.0, 0, torch.qint8)


MODEL = "unwrapped 'model'"
DDP = "stripped the prefix 'module.'"
# What a checkpoint is: how it is made, and what is said of it where it fits.
TAKEN: dict[str, tuple[Callable[[], object], str]] = {
    "a state dict": (plain, "fits: 21 classes\n"),
    "torchvision's script": (
        lambda: {"model": plain(), "optimizer": {"lr": 1}, "args": argparse.Namespace(output=Path("x"))},
        f"fits: 21 classes; {MODEL}\n",
    ),
    "DataParallel": (lambda: under("module."), DDP),
    "DDP in a training script": (lambda: {"model": under("module."), "epoch": 3}, f"{MODEL}; {DDP}"),
    "torch.compile": (lambda: under("_orig_mod."), "stripped the prefix '_orig_mod.'"),
    "torch.compile in DDP": (lambda: under("module._orig_mod."), "stripped the prefix 'module._orig_mod.'"),
    "Lightning": (
        lambda: {
            "state_dict": under("model."),
            "hyper_parameters": {"lr": 0.1},
            "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5)}},
            "pytorch-lightning_version": "2.5.0",
        },
        "unwrapped 'state_dict'; stripped the prefix 'model.'",
    ),
    "Lightning with a loss": (
        lambda: {"state_dict": under("net.fcn.") | {"criterion.weight": torch.ones(21)}},
        "stripped the prefix 'net.fcn.'; left out criterion.weight, not part of the network",
    ),
    "an average": (
        lambda: {"model_ema": averaged()},
        f"fits: 21 classes; unwrapped 'model_ema'; {DDP}\n",
    ),
    "an average in a module": (lambda: {"ema": {"module": plain()}}, "unwrapped 'module' in 'ema'"),
    "PyTorch's tutorial": (lambda: {"model_state_dict": plain(), "loss": 0.3}, "'model_state_dict'"),
    "DeepSpeed": (lambda: {"module": plain(), "ds_version": "0.17"}, "unwrapped 'module'"),
    "a net": (lambda: {"net": plain(), "acc": 91.2}, "unwrapped 'net'"),
    "the same under two names": (
        lambda: (lambda state: {"model": state, "state_dict": state})(plain()),
        MODEL,
    ),
    "two networks, of which one fits": (
        lambda: {"model": other_network(), "ema": plain()},
        "unwrapped 'ema'",
    ),
    "safetensors": (lambda: as_safetensors(plain()), "fits: 21 classes\n"),
    "safetensors of DDP": (lambda: as_safetensors(under("module.")), DDP),
    "half": (lambda: {name: value.half() for name, value in plain().items()}, "fits"),
    "float32": (lambda: {name: value.float() for name, value in plain().items()}, "fits"),
    "bfloat16": (lambda: {name: value.bfloat16() for name, value in plain().items()}, "fits"),
    "float64": (lambda: {name: value.double() for name, value in plain().items()}, "fits"),
    "NumPy's scalars beside it": (
        lambda: {"model": plain(), "best": np.float64(0.4), "step": np.int64(3), "per_class": np.ones(21)},
        MODEL,
    ),
    "an auxiliary head": (lambda: plain() | {"aux_classifier.0.weight": torch.ones(2)}, "fits: 21 classes\n"),
    "counters": (lambda: plain() | {"backbone.0.1.num_batches_tracked": torch.tensor(9)}, "fits: 21 c"),
    "one channel": (one_channel, "fits: 2 classes; read its one output x as two classes"),
}
# What is refused, and what is said of it.
REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "two networks that fit": (
        lambda: {"model": plain(), "model_ema": averaged()},
        "holds two networks that fit efficientnet_lite0, 'model' and 'model_ema.module'; save the one",
    ),
    "a student and a teacher": (
        lambda: {"state_dict": under("student.") | under("teacher.")},
        "'state_dict.student' and 'state_dict.teacher'",
    ),
    "a network and its average in one": (lambda: plain() | under("ema."), "'the top' and 'ema'"),
    "code": (lambda: plain() | {"extra": Code()}, "refused, it asks to run"),
    "a module": (lambda: nn.Linear(1, 1), "refused, it asks to run torch.nn.modules.linear.Linear"),
    "a network without an entry": (other_network, f"{FIRST} missing"),
    "more entries": (lambda: under("model.") | {"model.extra": torch.ones(1)}, "in 'model': does not fit"),
    "another shape": (
        lambda: plain() | {LAST[1]: torch.ones(20)},
        "classifier.4.bias of another shape",
    ),
    "300 classes": (
        lambda: plain() | {name: torch.cat([bundled()[name]] * 15)[:300] for name in LAST},
        "has 300 classes; 2 to 255 are supported",
    ),
    "another head": (lambda: {"classifier.weight": torch.ones(3, 3)}, "has no FCN classifier"),
    "an optimiser": (lambda: {"optimizer": {"state": {}}, "epoch": 1}, "contains no state dict"),
    "NaN": (lambda: plain() | {LAST[1]: filled(float("nan"))}, "classifier.4.bias has values that are"),
    "infinity": (lambda: plain() | {LAST[1]: filled(float("inf"))}, "that are not finite"),
    "a sparse tensor": (lambda: plain() | {LAST[1]: filled(1).to_sparse()}, "is a sparse tensor"),
    "a quantised tensor": (lambda: plain() | {FIRST: quantised()}, "is a quantised tensor"),
    "a NumPy array for a tensor": (lambda: plain() | {LAST[1]: np.ones(21)}, "is no tensor"),
    "cut off": (lambda: saved(plain())[:1_000_000], "truncated or damaged (1,000,000 bytes)"),
    "safetensors, cut off": (lambda: as_safetensors(plain())[:-9], "not a whole safetensors file"),
}


def write(content: object) -> Path:
    path = Path("mine.safetensors" if isinstance(content, bytes) else "mine.pth")
    path.write_bytes(content if isinstance(content, bytes) else saved(content))
    return path


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", [*TAKEN, *REFUSED])
def test_what_weights_check_says(name: str, fcn: Fcn, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = BACKBONES["efficientnet_lite0"]
    for other in set(BACKBONES) - {ours.name}:
        monkeypatch.delitem(BACKBONES, other)
    build, said = (TAKEN | REFUSED)[name]
    path = write(build())
    done = fcn("weights", "check", path, code=0 if name in TAKEN else 2)
    assert said in done.stdout + done.stderr, done
    if name in TAKEN:
        loaded = weights.load(ours, weights.WeightsFile(path, weights.sha256_of(path))).model.state_dict()
        for key in {FIRST, *LAST} - ({*LAST} if name == "one channel" else set()):
            # bfloat16 has 8 bits.
            assert torch.allclose(loaded[key], bundled()[key].float(), rtol=2**-8 * (name == "bfloat16"))


def test_what_was_unwrapped_is_said_once_and_recorded(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images(["a.png", "b.png"])
    path = write({"model_ema": averaged()})
    done = fcn("segment", "made", *SMALL, "--weights", path, "-o", "out")
    assert done.stderr.count(f"mine.pth: unwrapped 'model_ema'; {DDP}") == 1
    recorded = json.loads((tmp_path / "out/settings.json").read_text())
    assert recorded["checkpoint"] == {"unwrapped": ["model_ema"], "prefix": "module."}
    again = fcn("segment", "made", *SMALL, "--weights", path, "-o", "out")
    assert "nothing to do" in again.stderr
    assert "took" not in again.stderr
    measured = fcn("evaluate", "made", "out/masks", *SMALL, "--weights", path)
    assert measured.stderr == f"fcn: mine.pth: unwrapped 'model_ema'; {DDP}\n"
    fcn("segment", "made", *SMALL, "-o", "plain")
    assert "checkpoint" not in json.loads((tmp_path / "plain/settings.json").read_text())


def test_one_channel_is_the_second_of_two_classes(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["a.png"])
    path = write(one_channel())
    loaded = weights.load(
        BACKBONES["efficientnet_lite0"], weights.WeightsFile(path, weights.sha256_of(path))
    ).model
    batch = torch.rand(1, 3, 64, 64)
    weight, bias = (bundled()[name][8:9].float() for name in LAST)
    with torch.inference_mode():
        nothing, cat = loaded(batch)[0]
        inner = loaded.get_submodule("backbone")(batch)
        for layer in list(loaded.get_submodule("classifier").children())[:4]:
            inner = layer(inner)
        exact = nn.functional.conv2d(inner, weight, bias)[0, 0]
    assert not nothing.any()
    assert torch.allclose(cat, exact, atol=1e-5)


@pytest.mark.parametrize("depth", [30])
def test_a_pickle_that_holds_itself_is_read_once(depth: int, fcn: Fcn) -> None:
    innermost: dict[str, Any] = {"x": torch.ones(1)}
    content = innermost
    for _ in range(depth):
        content = dict.fromkeys(("model", "ema", "net", "module"), content)
    innermost["model"] = content
    assert "has no FCN classifier" in fcn("weights", "check", write(content), code=2).stderr

"""Logits that are not finite fail that image by name, on every path; the others are not concerned."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fcn_cli import FailureKind, ImageError, Segmenter
from fcn_cli.common.class_names import VOC_CLASSES
from fcn_cli.common.errors import Failure
from fcn_cli.common.label_map import Segmentation
from fcn_cli.inference import engine
from fcn_cli.inference.execution import ExecutionConfig
from fcn_cli.inputs import resizing
from fcn_cli.models.card import IMAGENET
from fcn_cli.models.registry import BACKBONES
from fcn_cli.models.weights import LoadedModel

from ..conftest import SAMPLES, SMALL, Fcn, MakeImages, journal_of, preview_network, tree

Change = Callable[[dict[str, Tensor]], None]


def save(path: Path, change: Change) -> Path:
    """Save the preview's weights, changed."""
    model = preview_network().model
    state = model.state_dict()
    change(state)
    assert all(value.isfinite().all() for value in state.values())
    torch.save(state, path)
    return path


def huge_batchnorm(state: dict[str, Tensor]) -> None:
    """Finite weights; where no clamp follows, features overflow, and differences of infinities are NaN."""
    for block in (5, 6):
        weight = state[f"backbone.{block}.conv.3.weight"]
        weight *= 1e38 / weight.abs().max()


def scaled_head(factor: float) -> Change:
    """Logits that are this many times as large; the classes stay."""

    def change(state: dict[str, Tensor]) -> None:
        state["classifier.4.weight"] *= factor
        state["classifier.4.bias"] *= factor

    return change


@pytest.mark.parametrize("kernels", ["fast", "torch"])
def test_a_checkpoint_that_overflows_fails_every_image_by_name(
    kernels: str, fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images(["a.png", "b.png", "c.png"])
    weights = save(tmp_path / "huge.pth", huge_batchnorm)
    done = fcn(
        "segment", "made", *SMALL, "--weights", weights, "--kernels", kernels, "-b", "2", "-o", "out", code=1
    )
    assert "3 images: 0 done, 3 failed" in done.stderr
    for name in ("a", "b", "c"):
        assert f"{name}.png: the network's logits are not finite" in done.stderr
    assert {one["error"]["kind"] for one in journal_of(tmp_path / "out").values()} == {"NonFiniteLogits"}
    assert not list((tmp_path / "out").rglob("*.png"))
    summary = json.loads((tmp_path / "out/summary.json").read_text())["run"]
    assert (summary["images"], summary["ok"], summary["failed"]) == (3, 0, 3)


def largest_logit(image: Path) -> float:
    """Return the largest absolute logit of the preview at ``--resize 64``, by plain torchvision."""
    network = preview_network()
    pixels, _ = resizing.network_input(Image.open(image).convert("RGB"), 64)
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (IMAGENET.mean, IMAGENET.std))
    with torch.inference_mode():
        return float(network.model((batch - mean) / std).abs().max())


@pytest.mark.long
@pytest.mark.parametrize("kernels", ["fast", "torch"])
def test_only_the_image_whose_logits_overflow_fails(kernels: str, fcn: Fcn, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    for name, left in (("a", 0), ("b", 100), ("c", 200), ("d", 260)):
        cut = Image.open(SAMPLES / "astronaut.png").convert("RGB").crop((left, left, left + 250, left + 200))
        cut.save(folder / f"{name}.png")
    sizes = {path.name: largest_logit(path) for path in folder.iterdir()}
    second, largest = sorted(sizes.values())[-2:]
    assert largest > 1.02 * second
    # A power of two changes no digit: the other masks stay as they were. In two steps, as float32 ends
    # where the largest logit does.
    limit = torch.finfo(torch.float32).max
    factor = 2.0 ** np.floor(np.log2(limit / 4 / largest))
    rest = limit / 4 / factor / ((largest + second) / 2)
    common = ("segment", "made", *SMALL, "--kernels", kernels, "-b", "4", "-j", "0")
    fcn(*common, "--weights", save(tmp_path / "plain.pth", scaled_head(rest)), "-o", "plain")
    weights = save(tmp_path / "scaled.pth", scaled_head(rest * factor))
    fcn(*common, "--weights", weights, "-o", "out", code=1)
    records = journal_of(tmp_path / "out")
    failed = [name for name, one in records.items() if one["status"] == "failed"]
    assert failed == [name for name, one in sizes.items() if one == largest]
    expected = tree(tmp_path / "plain/masks")
    assert len(set(expected.values())) > 1
    del expected[failed[0]]
    assert tree(tmp_path / "out/masks") == expected


def test_the_python_api_raises_it(tmp_path: Path) -> None:
    ours = Segmenter("efficientnet_lite0", resize=64, weights=save(tmp_path / "huge.pth", huge_batchnorm))
    with pytest.raises(ImageError) as raised:
        ours(SAMPLES / "chelsea.png")
    assert raised.value.failure.kind == FailureKind.NOT_FINITE
    got = list(ours.batch([SAMPLES / "chelsea.png"] * 2, on_error="return"))
    assert [type(one) for one in got] == [ImageError] * 2


def stub_engine(classifier: nn.Module, **plan: Any) -> engine.Engine:
    network = LoadedModel(BACKBONES["efficientnet_lite0"], classifier.eval(), VOC_CLASSES)
    how = {"precision": "fp32", "kernels": "torch", "batch_size": 8, "threads": 1, **plan}
    return engine.Engine(network, ExecutionConfig(torch.device("cpu"), **how))


class WhereWhite(nn.Module):
    """Puts one value into the logits of images that begin with white."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, features: Tensor) -> Tensor:
        logits = features.clone()
        white = features[:, 0, 0, 0] > 2.2
        logits[white, 1, 2, 3] = self.value
        return logits


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 3.3e38])
def test_one_bad_logit_among_thousands_fails_its_image_alone(value: float) -> None:
    """The last value is finite; interpolation takes differences, which would not be."""
    pixels = [np.full((9, 9, 3), level, np.uint8) for level in (0, 255, 100, 255, 50)]
    pixels[0][4:, :, 1] = 200
    results = stub_engine(WhereWhite(value)).predict(pixels, [(18, 18)] * 5)
    assert [isinstance(one, Failure) for one in results] == [False, True, False, True, False]
    expected = stub_engine(nn.Identity()).predict(pixels, [(18, 18)] * 5)
    for got, plain in zip(results, expected, strict=True):
        if not isinstance(got, Failure):
            assert isinstance(plain, Segmentation)
            assert np.array_equal(got.labels, plain.labels)
    assert len(np.unique(expected[0].labels)) > 1  # type: ignore[union-attr]


class NarrowHead(nn.Module):
    """Overflows float16 where pixels are bright, not where they are near the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1, bias=False)
        nn.init.zeros_(self.conv.weight)
        with torch.no_grad():
            for index, level in enumerate((20000.0, 30000.0, -30000.0)):
                self.conv.weight[index, :, 0, 0] = level

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.conv(features)
        return logits


def test_what_float16_cannot_hold_is_done_again_in_float32() -> None:
    """`auto` on a GPU of compute capability 7.x; a CPU computes float16 as well."""
    levels = (110, 255, 120, 0)
    pixels = [np.full((8, 8, 3), level, np.uint8) for level in levels]
    sizes = [(8, 8)] * 4
    exact = stub_engine(NarrowHead()).predict(pixels, sizes)
    narrow = stub_engine(NarrowHead(), precision="fp16").predict(pixels, sizes)
    assert [isinstance(one, Failure) for one in narrow] == [False, True, False, True]
    assert "--precision fp32" in narrow[1].message  # type: ignore[union-attr]
    both = stub_engine(NarrowHead(), precision="fp16", fallback="fp32").predict(pixels, sizes)
    assert [one.precision for one in both] == ["fp16", "fp32", "fp16", "fp32"]  # type: ignore[union-attr]
    for got, want in zip(both, exact, strict=True):
        assert np.array_equal(got.labels, want.labels)  # type: ignore[union-attr]
    assert {int(one.labels[0, 0]) for one in exact} == {1, 2}  # type: ignore[union-attr]
    # What is not finite in float32 either has failed.
    hopeless = stub_engine(WhereWhite(float("nan")), precision="fp16", fallback="fp32").predict(pixels, sizes)
    assert [isinstance(one, Failure) for one in hopeless] == [False, True, False, False]

"""`--write confidence` and `--min-confidence`, against plain softmax."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fcn_cli import Segmenter
from fcn_cli.inference.labels import PredictionOptions, Upsampler

from ..conftest import PREVIEW, SAMPLES, SMALL, Fcn, MakeImages, journal_of, preview_network, tree

SIZE = ("--resize", "200")


@settings(max_examples=60)
@given(
    st.integers(1, 30),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 70),
    st.integers(1, 70),
    st.floats(0, 1),
    st.dictionaries(st.integers(0, 5), st.floats(0, 1), max_size=3),
)
def test_confidence_is_the_softmax_of_the_interpolated_logits(
    classes: int, h: int, w: int, height: int, width: int, minimum: float, by_class: dict[int, float]
) -> None:
    by_class = {index: least for index, least in by_class.items() if index < classes}
    logits = 3 * torch.randn(classes, h, w, generator=torch.Generator().manual_seed(h * w))
    got = Upsampler(PredictionOptions(True, minimum, by_class)).to_size(logits, height, width)
    wide = F.interpolate(logits[None].double(), (height, width), mode="bilinear", align_corners=False)
    best = wide.softmax(1)[0].amax(0)
    assert got.confidence is not None
    assert (got.confidence - best * 255).abs().max() <= 0.501
    plain = Upsampler().to_size(logits, height, width)
    needed = torch.full((classes,), minimum, dtype=torch.float64)
    for index, least in by_class.items():
        needed[index] = least
    needed = needed[plain.labels.long()]
    clear = (best - needed).abs() > 1e-5
    assert torch.equal((got.labels == 255)[clear], (best < needed)[clear])
    assert plain.confidence is None
    kept = got.labels != 255
    assert torch.equal(got.labels[kept], plain.labels[kept])


def probabilities(path: Path) -> torch.Tensor:
    """Plain torchvision's, at the image's size."""
    network = preview_network()
    image = Image.open(path).convert("RGB")
    short, long = sorted(image.size)
    size = (200, 200 * long // short)
    pixels = np.array(
        image.resize(size if image.width < image.height else size[::-1], Image.Resampling.BILINEAR)
    )
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    batch = (batch - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    with torch.inference_mode():
        logits = network.model(batch)
        wide = F.interpolate(logits, image.size[::-1], mode="bilinear", align_corners=False)
    return wide.softmax(1)[0].amax(0)


@pytest.mark.long
def test_confidence_files_and_void_pixels(fcn: Fcn, tmp_path: Path) -> None:
    image = SAMPLES / "chelsea.png"
    fcn("segment", image, *PREVIEW, *SIZE, "--write", "masks,color,confidence", "-o", "out")
    written = Image.open(tmp_path / "out/confidence/chelsea.png")
    assert written.mode == "L"
    best = probabilities(image)
    assert np.abs(np.array(written) - best.numpy() * 255).max() < 0.6
    fcn("segment", image, *PREVIEW, *SIZE, "--min-confidence", "0.6", "-o", "sure")
    all_labels, sure, color = (
        np.array(Image.open(tmp_path / name))
        for name in ("out/masks/chelsea.png", "sure/masks/chelsea.png", "sure/color/chelsea.png")
    )
    clear = (best - 0.6).abs().numpy() > 1e-4
    assert np.array_equal((sure == 255)[clear], (best < 0.6).numpy()[clear])
    assert 0 < (sure == 255).mean() < 1
    assert np.array_equal(sure[sure != 255], all_labels[sure != 255])
    assert np.array_equal(color, sure)
    stats = (tmp_path / "sure/stats.csv").read_text()
    assert f"255,void,{int((sure == 255).sum())}" in stats
    by_class = ("--min-confidence", "Cat=0.7,0.4")
    fcn("segment", image, *PREVIEW, *SIZE, *by_class, "-o", "by_class")
    some = np.array(Image.open(tmp_path / "by_class/masks/chelsea.png"))
    needed = np.where(all_labels == 8, 0.7, 0.4)
    clear = np.abs(best.numpy() - needed) > 1e-4
    assert np.array_equal((some == 255)[clear], (best.numpy() < needed)[clear])
    assert {8, 255} <= set(np.unique(some).tolist())
    own = Segmenter(PREVIEW[1], resize=200, min_confidence={"cat": 0.7, "*": 0.4})(image)
    assert np.array_equal(own.labels, some)
    again = fcn("segment", image, *PREVIEW, *SIZE, "--min-confidence", "0.4,8=0.7", "-o", "by_class")
    assert "nothing to do" in again.stderr
    wrong = fcn("segment", image, *PREVIEW, "--min-confidence", "dogg=0.7", "-o", "new", code=2)
    assert "--min-confidence dogg: no such class; did you mean dog?" in wrong.stderr
    refused = fcn("segment", image, *PREVIEW, *SIZE, "-o", "sure", code=2)
    assert "--min-confidence: 0.6 before, 0 now" in refused.stderr


@pytest.mark.long
def test_confidence_is_added_to_what_is_done(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    made = make_images(["a.png", "b.png"])
    fcn("segment", made, *SMALL, "-o", "out", "--write", "masks,overlay")
    before = tree(tmp_path / "out/masks"), tree(tmp_path / "out/overlay")
    done = fcn("segment", made, *SMALL, "-o", "out", "--write", "masks,color,confidence", "-v")
    assert "2 to complete" in done.stderr
    assert (tree(tmp_path / "out/masks"), tree(tmp_path / "out/overlay")) == before
    assert len(tree(tmp_path / "out/confidence")) == len(tree(tmp_path / "out/color")) == 2
    for record in journal_of(tmp_path / "out").values():
        assert {Path(name).parts[0] for name in record["outputs"]} == {
            "masks",
            "overlay",
            "color",
            "confidence",
        }
    again = fcn("segment", made, *SMALL, "-o", "out", "--write", "masks,color,confidence")
    assert "nothing to do" in again.stderr


def test_from_python() -> None:
    result = Segmenter("efficientnet_lite0", resize=200, confidence=True, min_confidence=0.6)(
        SAMPLES / "chelsea.png"
    )
    assert result.confidence is not None
    assert result.confidence.shape == result.labels.shape
    assert set(np.unique(result.confidence[result.labels != 255] >= 152)) == {True}
    assert any(share.class_name == "void" for share in result.stats())


@pytest.mark.parametrize("value", ["1.1", "-0.1", "high", "cat=2", "=0.5", "cat=0.1,cat=0.2", ""])
def test_a_probability_is_between_0_and_1(fcn: Fcn, make_images: MakeImages, value: str) -> None:
    assert (
        "min-confidence" in fcn("segment", make_images(["a.png"]), "--min-confidence", value, code=2).stderr
    )

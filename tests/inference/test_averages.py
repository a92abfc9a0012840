"""Averages over several sizes and the mirror image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torch.nn import functional

from fcn_cli import Segmenter
from fcn_cli.inference.labels import PredictionOptions, Upsampled, Upsampler
from fcn_cli.inference.tiling import TileAxis
from fcn_cli.inference.views import average, resample, upsample_blocks
from fcn_cli.inputs.resizing import network_inputs

from ..conftest import PREVIEW, SAMPLES, Fcn, journal_of, preview_network


@settings(max_examples=60)
@given(
    width=st.integers(1, 400),
    other=st.integers(1, 400),
    size=st.integers(1, 400),
    tile=st.sampled_from([None, 128]),
    compiled=st.booleans(),
)
def test_interpolation_is_its_own_mirror_image(
    width: int, other: int, size: int, tile: int | None, *, compiled: bool
) -> None:
    """Mirrored rows give the mirrored label map, but for the rounding of numbers."""
    x, finer = (TileAxis.of(length, tile, 32, 8, is_centred=True) for length in (width, other))
    y = TileAxis.of(40, None, None, 8)
    rows = torch.softmax(torch.randn(4, y.cells, x.cells, generator=torch.Generator().manual_seed(width)), 0)
    (straight,), (mirrored,) = (
        resample(iter([image]), x.taps_of_cells(finer), y.taps_of_cells(y)) for image in (rows, rows.flip(2))
    )
    assert torch.allclose(straight.flip(2), mirrored, atol=1e-6)

    def upsampled(image: torch.Tensor) -> Upsampled:
        upsampler = Upsampler(PredictionOptions(confidence=True), compiled, probabilities=True)
        taps = x.taps_of_pixels(size), y.taps_of_pixels(37)
        return upsample_blocks(iter([image]), *taps, upsampler, image.device)

    maps, turned = upsampled(rows), upsampled(rows.flip(2))
    assert maps.confidence is not None
    assert turned.confidence is not None
    assert (maps.confidence.flip(1).int() - turned.confidence.int()).abs().max() <= 1
    # At an equal distance from two cells, either may win.
    assert (maps.labels.flip(1) != turned.labels).sum() <= 2


@pytest.mark.parametrize("is_centred", [False, True])
def test_cells_of_another_size_are_interpolated_where_they_are(is_centred: bool) -> None:
    """Rows whose values are their places stay so, on the right of an image too."""
    large, small = (TileAxis.of(length, 128, 32, 16, is_centred=is_centred) for length in (301, 226))
    y = TileAxis.of(40, None, None, 16)

    def places(axis: TileAxis) -> torch.Tensor:
        before = (axis.cells * axis.stride - axis.length) / 2 if is_centred else 0
        return (16 * (torch.arange(axis.cells) + 0.5) - before) / axis.length

    rows = places(small).expand(1, y.cells, -1)
    (got,) = resample(iter([rows]), small.taps_of_cells(large), y.taps_of_cells(y))
    inside = (places(large) >= places(small)[0]) & (places(large) <= places(small)[-1])
    assert inside.sum() > 12
    assert torch.allclose(got[0, 0, inside], places(large)[inside], atol=1e-5)


def test_averages_do_not_depend_on_the_blocks_in_which_rows_come() -> None:
    images = [torch.rand(3, 20, 7) for _ in range(3)]
    streams = [iter(torch.split(image, size, 1)) for image, size in zip(images, (3, 20, 7), strict=True)]
    got = torch.cat(list(average(streams)), 1)
    assert torch.allclose(got, torch.stack(images).mean(0))


@pytest.mark.long
@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((301, 233), ("--resize", "none")),
        ((300, 200), ("--tile", "128")),
        ((277, 180), ("--tile", "128", "--scales", "0.75,1,1.25")),
        ((450, 301), ("--resize", "96", "--scales", "0.7,1")),
    ],
)
def test_the_mirrored_image_has_the_mirrored_mask(
    fcn: Fcn, tmp_path: Path, size: tuple[int, int], options: tuple[str, ...]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    with Image.open(SAMPLES / "astronaut.png") as opened:
        image = opened.convert("RGB").resize(size)
    image.save(folder / "photo.png")
    ImageOps.mirror(image).save(folder / "mirrored.png")
    fcn("segment", folder, *PREVIEW, *options, "--flip", "-o", "out", "--write", "masks,confidence")
    for kind in ("masks", "confidence"):
        straight, mirrored = (
            np.asarray(Image.open(tmp_path / "out" / kind / f"{name}.png")) for name in ("photo", "mirrored")
        )
        different = straight[:, ::-1].astype(int) - mirrored
        if kind == "masks":
            assert np.mean(different != 0) <= 1e-4
        else:
            assert np.abs(different).max() <= 1
        assert len(np.unique(straight)) > 1
    notes = journal_of(tmp_path / "out")["photo.png"]["notes"]
    assert "averaged with its mirror image" in notes


@pytest.mark.long
def test_one_scale_is_the_plain_way_bit_for_bit(fcn: Fcn, images: Path) -> None:
    image = images / "coffee.png"
    fcn("segment", image, *PREVIEW, "--resize", "200", "-o", "plain", "--write", "masks,confidence")
    fcn(
        "segment",
        image,
        *PREVIEW,
        "--resize",
        "200",
        "--scales",
        "1",
        "-o",
        "one",
        "--write",
        "masks,confidence",
    )
    for kind in ("masks", "confidence"):
        plain, one = (images.parent / name / kind / "coffee.png" for name in ("plain", "one"))
        assert plain.read_bytes() == one.read_bytes()
    done = fcn("segment", image, *PREVIEW, "--resize", "200", "--scales", "1,0.5", "-o", "one", code=2)
    assert "--scales: 1 before, 0.5,1 now" in done.stderr


@pytest.mark.long
def test_scales_and_flip_average_torchvisions_probabilities() -> None:
    with Image.open(SAMPLES / "chelsea.png") as opened:
        image = opened.convert("RGB")
    sizes, notes = network_inputs(image, 160, (0.5, 1.0))
    assert [pixels.shape[:2] for pixels in sizes] == [(160, 240), (80, 120)]
    assert notes == ("average of scales 0.5, 1",)
    model = preview_network().model
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def probabilities(pixels: np.ndarray) -> torch.Tensor:
        batch = (torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255 - mean) / std
        with torch.inference_mode():
            logits = model(batch[None])
        return torch.softmax(logits, 1)

    total = torch.zeros(1, 21, 10, 15)
    for pixels in sizes:
        ours = probabilities(pixels) + probabilities(pixels[:, ::-1]).flip(3)
        total += functional.interpolate(ours, (10, 15), mode="bilinear", align_corners=False) / 4
    full = functional.interpolate(total, image.size[::-1], mode="bilinear", align_corners=False)[0]
    got = Segmenter("efficientnet_lite0", resize=160, scales=[1, 0.5], flip=True, confidence=True)(image)
    best = full.topk(2, 0).values
    clear = (best[0] - best[1] > 1e-4).numpy()
    assert clear.mean() > 0.99
    assert np.array_equal(got.labels[clear], full.argmax(0).numpy()[clear])
    assert got.confidence is not None
    assert np.abs(got.confidence - best[0].numpy() * 255).max() < 0.51

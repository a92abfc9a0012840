"""``--write logits`` and what the library says of them: upsampled they give the mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from PIL import Image

from fcn_cli import RequestError, Segmenter

from ..conftest import PREVIEW, SAMPLES, SMALL, Fcn, journal_of

IMAGES = ("chelsea.png", "grace_hopper.jpg")


def assert_logits_of(logits: NDArray[np.float16], labels: NDArray[np.uint8]) -> None:
    """Check that upsampled logits give labels, but where the best two are as good as equal."""
    wide = F.interpolate(
        torch.from_numpy(logits).float()[None], labels.shape, mode="bilinear", align_corners=False
    )[0]
    best, second = wide.topk(2, 0).values
    clear = (best - second > 1e-3 * wide.std()).numpy()
    assert clear.mean() > 0.98
    assert np.array_equal(wide.argmax(0).numpy()[clear], labels[clear])


def test_logits_give_the_mask(fcn: Fcn, tmp_path: Path) -> None:
    line = ("segment", SAMPLES / IMAGES[0], SAMPLES / IMAGES[1], *SMALL, "-o", "out")
    fcn(*line, "--write", "masks,logits")
    for name in IMAGES:
        logits = np.load(tmp_path / f"out/logits/{Path(name).stem}.npy", allow_pickle=False)
        height, width = sorted(Image.open(SAMPLES / name).size)
        assert logits.dtype == np.float16
        assert len(logits) == 21
        assert {4, -(-round(64 * width / height) // 16)} == set(logits.shape[1:])
        assert_logits_of(logits, np.array(Image.open(tmp_path / f"out/masks/{Path(name).stem}.png")))
    assert "no problem" in fcn("verify", "out").stderr
    assert "nothing to do" in fcn(*line, "--write", "logits").stderr
    (tmp_path / "out/logits/chelsea.npy").write_bytes(
        b"x" * journal_of(tmp_path / "out")["chelsea.png"]["output_bytes"][1]
    )
    assert "logits/chelsea.npy: cannot be decoded" in fcn("verify", "out", code=1).stdout


def test_logits_are_added_to_what_is_done(fcn: Fcn, tmp_path: Path) -> None:
    line = ("segment", SAMPLES / IMAGES[0], *SMALL, "-o", "out")
    fcn(*line)
    fcn(*line, "--write", "masks,color,logits")
    labels = np.array(Image.open(tmp_path / "out/masks/chelsea.png"))
    assert_logits_of(np.load(tmp_path / "out/logits/chelsea.npy"), labels)
    assert set(journal_of(tmp_path / "out")["chelsea.png"]["outputs"]) == {
        "masks/chelsea.png",
        "color/chelsea.png",
        "logits/chelsea.npy",
    }


def test_of_averages_there_are_none(fcn: Fcn) -> None:
    line = ("segment", SAMPLES / IMAGES[0], *SMALL, "-o", "out", "--write", "logits")
    for option in (("--flip",), ("--scales", "1,1.5")):
        assert "which average probabilities" in fcn(*line, *option, code=2).stderr
    one = ("segment", SAMPLES / IMAGES[0], *SMALL, "-o", "x.png", "--write", "logits")
    assert "logits cannot be written as one PNG" in fcn(*one, code=2).stderr


def test_from_python() -> None:
    image = SAMPLES / IMAGES[0]
    result = Segmenter(PREVIEW[1], resize=64, logits=True, confidence=True, map="cat=1,*=0")(image)
    assert result.logits is not None and result.confidence is not None  # noqa: PT018
    plain = Segmenter(PREVIEW[1], resize=64)(image)
    assert_logits_of(result.logits, plain.labels)
    probabilities = result.probabilities()
    assert probabilities.shape == (21, *plain.labels.shape)
    assert np.abs(probabilities.sum(0) - 1).max() < 1e-5
    assert np.abs(probabilities.max(0) * 255 - result.confidence).max() < 2
    assert plain.logits is None
    with pytest.raises(RequestError, match="logits=True"):
        plain.probabilities()
    with pytest.raises(RequestError, match="flip"):
        Segmenter(PREVIEW[1], logits=True, flip=True)


def test_logits_of_tiles() -> None:
    image = SAMPLES / IMAGES[1]
    whole = Segmenter(PREVIEW[1], resize=256, logits=True)(image)
    tiled = Segmenter(PREVIEW[1], resize=256, tile=192, logits=True)(image)
    assert tiled.is_tiled and not whole.is_tiled  # noqa: PT018
    assert whole.logits is not None and tiled.logits is not None  # noqa: PT018
    # A cell for each 16 pixels, the last one perhaps beyond the image.
    assert tiled.logits.shape == whole.logits.shape == (21, -(-300 // 16), 16)
    with pytest.raises(RequestError, match="and no tiles"):
        tiled.probabilities()

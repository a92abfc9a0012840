"""The engine's pieces against plain PyTorch: upsampling, batches, the registry, the preview network."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.models.segmentation import FCN_ResNet50_Weights, FCN_ResNet101_Weights

from fcn_cli import Segmenter
from fcn_cli.common.class_names import VOC_CLASSES
from fcn_cli.common.errors import Failure, FailureKind, ImageError
from fcn_cli.inference import engine, execution
from fcn_cli.inference.labels import Upsampler
from fcn_cli.inference.options import InferenceOptions
from fcn_cli.inputs.decoder import DecodedImage
from fcn_cli.inputs.discovery import Source
from fcn_cli.models.registry import BACKBONES, BundledWeights, OfficialWeights
from fcn_cli.models.weights import LoadedModel
from fcn_cli.runs import prediction_stream

from ..conftest import SAMPLES, SMALL, Fcn, MakeImages, tree
from ..models.test_networks import fcn_efficientnet_lite0


@settings(max_examples=60)
@given(
    st.integers(2, 30),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(0, 2**31),
)
def test_label_map_is_interpolate_then_argmax(
    classes: int, h: int, w: int, height: int, width: int, seed: int
) -> None:
    logits = torch.randn(classes, h, w, generator=torch.Generator().manual_seed(seed))
    full = F.interpolate(logits[None], (height, width), mode="bilinear", align_corners=False)[0]
    got = Upsampler().to_size(logits, height, width).labels
    assert got.dtype == torch.uint8
    assert got.shape == (height, width)
    best, second = full.topk(2, dim=0).values
    differing = got != full.argmax(0)
    assert not (differing & (best - second > 1e-4 * logits.std())).any()


@pytest.mark.long
def test_label_map_in_many_strips_and_with_ties() -> None:
    logits = torch.randn(21, 40, 50, generator=torch.Generator().manual_seed(1))
    full = F.interpolate(logits[None], (2000, 1700), mode="bilinear", align_corners=False)[0].argmax(0)
    assert (Upsampler().to_size(logits, 2000, 1700).labels != full).float().mean() < 1e-4
    assert not Upsampler().to_size(torch.zeros(5, 3, 3), 10, 10).labels.any()


def item(index: int, shape: tuple[int, int] | None) -> DecodedImage:
    source = Source(str(index), "", "", "", None, None)
    if shape is None:
        return DecodedImage(source, failure=Failure(FailureKind.BROKEN, "x"))
    return DecodedImage(source, np.zeros((*shape, 3), dtype=np.uint8))


@given(
    st.lists(st.one_of(st.none(), st.tuples(st.integers(1, 3), st.integers(1, 2))), max_size=60),
    st.integers(1, 5),
)
def test_batches_hold_every_item_once_in_one_shape_each(
    shapes: list[tuple[int, int] | None], size: int
) -> None:
    waiting = 0
    seen: list[int] = []

    def items() -> object:
        nonlocal waiting
        for index, shape in enumerate(shapes):
            waiting += shape is not None
            yield item(index, shape)
            assert waiting <= 4 * size + 1

    for got in prediction_stream.group_by_shape(items(), size):  # type: ignore[arg-type]
        if isinstance(got, list):
            assert 1 <= len(got) <= size
            assert len({one.pixels.shape for one in got if one.pixels is not None}) == 1
            indices = [int(one.source.image) for one in got]
            assert indices == sorted(indices)
            waiting -= len(got)
            seen += indices
        else:
            assert got is not None
            seen.append(int(got.source.image))
    assert sorted(seen) == list(range(len(shapes)))


def test_large_pixels_do_not_wait() -> None:
    shape = (9000, 9000)
    big = [item(index, shape) for index in range(3)]
    sizes = [len(got) for got in prediction_stream.group_by_shape(big, 8) if isinstance(got, list)]
    assert sizes == [2, 1]


@pytest.mark.long
def test_masks_do_not_depend_on_batches_workers_or_neighbours(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path
) -> None:
    make_images([f"p{i}.png" for i in range(7)], size=(80, 64))
    fcn("segment", "made", *SMALL, "-o", "one", "-b", "1", "-j", "1")
    fcn("segment", "made", *SMALL, "-o", "two", "-b", "3", "-j", "2")
    fcn("segment", "made", *SMALL, "-o", "three", "-b", "5", "-j", "0")
    fcn("segment", "made/p4.png", *SMALL, "-o", "four")
    expected = tree(tmp_path / "one/masks")
    assert len(set(expected.values())) > 1
    assert tree(tmp_path / "two/masks") == tree(tmp_path / "three/masks") == expected
    assert tree(tmp_path / "four/masks") == {"p4.png": expected["p4.png"]}


def test_the_registry_is_torchvisions() -> None:
    for name, official in (
        ("resnet50", FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1),
        ("resnet101", FCN_ResNet101_Weights.COCO_WITH_VOC_LABELS_V1),
    ):
        ours = BACKBONES[name].weights
        assert isinstance(ours, OfficialWeights)
        assert ours.url == official.url
        assert f"-{ours.sha256_prefix}." in official.url
        assert list(VOC_CLASSES) == official.meta["categories"]


@pytest.mark.long
def test_the_preview_network_is_the_model_cards() -> None:
    """Build it from the card's words, not from our code, and compare the masks."""
    plain = fcn_efficientnet_lite0(21).eval()
    bundled = BACKBONES["efficientnet_lite0"].weights
    assert isinstance(bundled, BundledWeights)
    state = torch.load(bundled.path, weights_only=True)
    plain.load_state_dict({key: value.float() for key, value in state.items()}, strict=False)
    image = Image.open(SAMPLES / "chelsea.png").convert("RGB")
    preset = FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.transforms()
    with torch.inference_mode():
        features = plain.get_submodule("backbone")(preset(image)[None])["out"]
        low = plain.get_submodule("classifier")(features)
    expected = F.interpolate(low, image.size[::-1], mode="bilinear", align_corners=False)[0].argmax(0).numpy()
    labels = Segmenter("efficientnet_lite0")(SAMPLES / "chelsea.png").labels
    assert (labels != expected).mean() < 0.001
    assert low.shape[-2:] == (33, 49)


@pytest.mark.long
def test_the_python_api(tmp_path: Path, fcn: Fcn) -> None:
    segmenter = Segmenter("efficientnet_lite0", resize=200)
    result = segmenter(SAMPLES / "astronaut.png")
    assert result.labels.shape == (512, 512)
    assert result.labels.dtype == np.uint8
    fcn(
        "segment",
        SAMPLES / "astronaut.png",
        "--backbone",
        "efficientnet_lite0",
        "--resize",
        "200",
        "-o",
        "out",
    )
    assert np.array_equal(result.labels, np.array(Image.open(tmp_path / "out/masks/astronaut.png")))
    assert np.array_equal(np.array(result.color()), result.labels)
    assert result.overlay().size == (512, 512)
    shares = result.stats()
    assert sum(share.pixels for share in shares) == 512 * 512
    assert sum(share.fraction for share in shares) == pytest.approx(1)
    again = segmenter(Image.open(SAMPLES / "astronaut.png"))
    assert np.array_equal(again.labels, result.labels)
    with pytest.raises(ImageError):
        segmenter(tmp_path / "nowhere.png")


class ScarceMemory(torch.nn.Module):
    """Stands for a device whose memory holds so many images at once."""

    def __init__(self, holds: int) -> None:
        super().__init__()
        self.holds = holds
        self.calls: list[int] = []

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(batch))
        if len(batch) > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return batch


def scarce(holds: int) -> tuple[engine.Engine, ScarceMemory]:
    model = ScarceMemory(holds)
    network = LoadedModel(BACKBONES["efficientnet_lite0"], model, VOC_CLASSES)
    return engine.Engine(
        network, execution.resolve_execution(InferenceOptions("cpu", kernels="torch", batch_size=8))
    ), model


def test_out_of_memory_halves_the_batch_down_to_one_by_one() -> None:
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 255, (6, 5, 3)).astype(np.uint8) for _ in range(8)]
    for holds, calls in ((8, [8]), (3, [8, 4, 2, 2, 2, 2]), (1, [8, 4, 2, *[1] * 8])):
        ours, network = scarce(holds)
        results = ours.predict(pixels, [(5, 6)] * 8)
        assert network.calls == calls
        assert [one.labels.shape for one in results if not isinstance(one, Failure)] == [(6, 5)] * 8
        # What was learned holds for the next batch of the shape, and for no other shape.
        network.calls.clear()
        ours.predict(pixels[:2], [(5, 6)] * 2)
        assert network.calls == ([2] if holds > 1 else [1, 1])
        network.calls.clear()
        network.holds = 8
        ours.predict([one[:5] for one in pixels], [(5, 5)] * 8)
        assert network.calls == [8]


def test_an_image_that_does_not_fit_alone_fails_alone() -> None:
    ours, _ = scarce(0)
    results = ours.predict([np.zeros((6, 5, 3), dtype=np.uint8)] * 2, [(5, 6)] * 2)
    assert [one.kind for one in results if isinstance(one, Failure)] == [FailureKind.OUT_OF_MEMORY] * 2


def test_too_large_at_native_size_fails_before_the_machine_does(
    fcn: Fcn, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from fcn_cli.common import resources

    make_images(["small.png"])
    Image.new("RGB", (800, 600)).save(tmp_path / "made/large.png")
    monkeypatch.setattr(resources, "available_memory", lambda: 50_000_000)
    done = fcn("segment", "made", "--backbone", "efficientnet_lite0", "--resize", "none", "-o", "out", code=1)
    assert "large.png: not enough memory for a network input of 800x600" in done.stderr
    assert "--resize" in done.stderr


def test_notes_reach_the_record(fcn: Fcn, make_images: MakeImages, tmp_path: Path) -> None:
    make_images(["small.png"])
    fcn("segment", "made", "--backbone", "efficientnet_lite0", "--resize", "none", "-o", "out")
    record = json.loads((tmp_path / "out/manifest.jsonl").read_text())
    assert "224" in record["notes"][0]


def test_devices_and_precisions_that_are_not_there(fcn: Fcn, make_images: MakeImages) -> None:
    make_images(["a.png"])
    for arguments, text in [
        (("--device", "tpu"), "auto, cpu, cuda"),
        (("--device", "cuda:99"), "CUDA device"),
        (("--device", "cpu", "--precision", "fp16"), "fp16 needs a CUDA device"),
    ]:
        assert text in fcn("segment", "made", *SMALL, *arguments, code=2).stderr


@pytest.mark.long
def test_bfloat16_on_a_cpu_agrees_mostly(fcn: Fcn, images: Path, tmp_path: Path) -> None:
    common = ("segment", images / "chelsea.png", "--backbone", "efficientnet_lite0", "--resize", "300")
    fcn(*common, "-o", "a")
    fcn(*common, "--precision", "bf16", "--kernels", "torch", "-o", "b")
    one, two = (np.array(Image.open(tmp_path / folder / "masks/chelsea.png")) for folder in "ab")
    assert (one == two).mean() > 0.95


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_float32_on_cuda_is_the_cpus(fcn: Fcn, images: Path, tmp_path: Path) -> None:
    fcn("segment", images, "--backbone", "efficientnet_lite0", "--device", "cpu", "-o", "cpu")
    fcn(
        "segment",
        images,
        "--backbone",
        "efficientnet_lite0",
        "--device",
        "cuda",
        "--precision",
        "fp32",
        "-o",
        "gpu",
    )
    for image in images.iterdir():
        one, two = (
            np.array(Image.open(tmp_path / d / "masks" / f"{image.stem}.png")) for d in ("cpu", "gpu")
        )
        assert (one != two).mean() < 0.001


def test_info_says_what_is_there(fcn: Fcn) -> None:
    text = fcn("info").stdout
    for expected in (
        torch.__version__,
        version("torchvision"),
        "resnet101",
        "thread",
        "devices",
        f"{execution.resolve_execution().kernels} kernels",
        "affinity",
        "primitives",
    ):
        assert expected in text

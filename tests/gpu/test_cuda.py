"""What only a GPU can show: results against plain torchvision, memory, the whole command.

``make gpu-test`` runs these; nothing here has a time limit of its own beyond pytest's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from benchmarks.material import randomise
from fcn_cli import Segmenter
from fcn_cli.common.class_names import VOC_CLASSES
from fcn_cli.common.label_map import Segmentation
from fcn_cli.inference import execution
from fcn_cli.inference.engine import Batch, Engine
from fcn_cli.inference.execution import ExecutionConfig
from fcn_cli.inference.interpolation import taps
from fcn_cli.inference.labels import LABELS_ONLY, PredictionOptions, Upsampler, find_label_kernel
from fcn_cli.inference.options import InferenceOptions, ViewOptions
from fcn_cli.inference.pipeline import run_batches
from fcn_cli.models import registry
from fcn_cli.models.card import IMAGENET
from fcn_cli.models.weights import LoadedModel

from ..conftest import SAMPLES, Fcn, journal_of, preview_network

CUDA = torch.device("cuda")
# DESIGN, section 3: where pixels may differ, and how many.
_TIE = 1e-4
_MAX_DIFFERENT = 0.001
# Of pixels that are not near a tie; measured on CPUs, where bfloat16 is rounded as on a GPU.
_LEAST_AGREEMENT = {"bf16": 0.97, "fp16": 0.99}

Pixels = NDArray[np.uint8]


def sample(size: tuple[int, int], index: int = 0) -> Pixels:
    names = ("astronaut.png", "chelsea.png", "coffee.png", "grace_hopper.jpg")
    with Image.open(SAMPLES / names[index % 4]) as image:
        return np.array(image.convert("RGB").resize(size))


@pytest.fixture(scope="module", params=["resnet50", "efficientnet_lite0"])
def network(request: pytest.FixtureRequest) -> LoadedModel:
    if request.param == "efficientnet_lite0":
        return preview_network()
    architecture = registry.find("resnet50")
    model = architecture.build(21).eval()
    randomise(model)
    return LoadedModel(architecture, model, VOC_CLASSES)


@pytest.fixture(autouse=True)
def _memory() -> Iterator[None]:
    yield
    torch.cuda.empty_cache()


def engine(
    network: LoadedModel,
    precision: str = "fp32",
    options: PredictionOptions | None = None,
    batch_size: int = 8,
    views: ViewOptions | None = None,
) -> Engine:
    plan = ExecutionConfig(CUDA, precision, "torch", batch_size, 2, "fp32" if precision == "fp16" else None)
    return Engine(network, plan, options or PredictionOptions(), views or ViewOptions())


def plain_logits(model: nn.Module, pixels: Pixels) -> Tensor:
    """torchvision's preset and model on the CPU, without the last upsampling."""
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (IMAGENET.mean, IMAGENET.std))
    batch = (torch.from_numpy(pixels).permute(2, 0, 1).float().div(255) - mean) / std
    with torch.inference_mode():
        logits: Tensor = model(batch[None])
    return logits[0]


def logits_of(ours: Engine, pixels: Pixels) -> Tensor:
    with ours._computing():
        return ours._tile_logits(ours.execution.precision, [pixels])[0].cpu()


def upsampled(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits[None], size[::-1], mode="bilinear", align_corners=False)[0]


def segmentations(results: Any) -> list[Segmentation]:
    assert all(isinstance(one, Segmentation) for one in results), results
    return list(results)


def test_float32_is_plain_torchvision(network: LoadedModel) -> None:
    pixels, size = sample((349, 261)), (349, 261)
    logits = plain_logits(network.model, pixels)
    ours = engine(network)
    got = logits_of(ours, pixels)
    assert float((got - logits).abs().max()) < 1e-3 * float(logits.std())
    large = upsampled(logits, size)
    expected = large.argmax(0).numpy()
    if network.backbone.name == "resnet50":
        assert len(np.unique(expected)) >= 5
    (result,) = segmentations(ours.predict([pixels], [size]))
    different = result.labels != expected
    best = large.topk(2, 0).values
    near = ((best[0] - best[1]) < _TIE * float(logits.std())).numpy()
    assert different.mean() <= _MAX_DIFFERENT
    assert not (different & ~near).any()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_narrower_types_agree_with_float32(precision: str, network: LoadedModel) -> None:
    if precision == "bf16" and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("bfloat16 needs compute capability 8.0")
    pixels, size = sample((349, 261)), (349, 261)
    exact = segmentations(engine(network).predict([pixels], [size]))[0].labels
    narrow = engine(network, precision)
    result = segmentations(narrow.predict([pixels], [size]))[0]
    logits = logits_of(engine(network), pixels)
    best = upsampled(logits, size).topk(2, 0).values
    clear = ((best[0] - best[1]) > 0.05 * float(logits.std())).numpy()
    assert (result.labels == exact)[clear].mean() >= _LEAST_AGREEMENT[precision]
    # The last layer is float32.
    own = logits_of(narrow, pixels)
    assert not torch.equal(own, own.to(torch.bfloat16 if precision == "bf16" else torch.float16).float())


def test_labels_come_from_the_kernel() -> None:
    """Not a matter of right or wrong, but without it a GPU is slower than it need be."""
    assert find_label_kernel(CUDA, LABELS_ONLY) is not None


@pytest.mark.parametrize("options", [PredictionOptions(), PredictionOptions(True, 0.4)])
def test_the_label_kernel_is_the_chunks(options: PredictionOptions) -> None:
    kernel = find_label_kernel(CUDA, options)
    if kernel is None:
        pytest.skip("Triton does not run here; see the test above")
    generator = torch.Generator().manual_seed(0)
    for shape, size in (((21, 65, 87), (693, 520)), ((3, 2, 5), (4001, 33)), ((255, 9, 9), (70, 70))):
        logits = torch.randn(*shape, generator=generator).mul_(3).to(CUDA)
        for layout in (logits, logits.permute(1, 2, 0).contiguous().permute(2, 0, 1)):
            x, y = taps(shape[2], size[0]), taps(shape[1], size[1])
            plain = Upsampler(options, compiled=False).upsample(logits, x, y)
            ours = kernel(layout, x.to(CUDA), y.to(CUDA), options, False)
            assert float((plain.labels != ours.labels).float().mean()) <= _MAX_DIFFERENT
            if plain.confidence is not None and ours.confidence is not None:
                assert int((plain.confidence.int() - ours.confidence.int()).abs().max()) <= 1


def test_confidence_is_the_softmax(network: LoadedModel) -> None:
    pixels, size = sample((240, 180)), (300, 200)
    probability = upsampled(plain_logits(network.model, pixels), size).softmax(0).amax(0)
    options = PredictionOptions(True, 0.5)
    (result,) = segmentations(engine(network, options=options).predict([pixels], [size]))
    assert result.confidence is not None
    assert np.abs(result.confidence - 255 * probability.numpy()).max() <= 1.5
    clear = (probability - 0.5).abs() > 0.01
    assert ((result.labels == 255) == (probability < 0.5).numpy())[clear.numpy()].all()


def test_mixed_sizes_in_the_pipeline_are_those_one_by_one(network: LoadedModel) -> None:
    ours = engine(network)
    shapes = [(128, 96), (96, 128), (128, 96), (200, 160)]
    batches = [
        Batch(
            [key] * count,
            [sample(shape, index) for index in range(count)],
            [(50 + 31 * index, 70) for index in range(count)],
        )
        for key, (shape, count) in enumerate(zip(shapes, (8, 3, 5, 1), strict=True))
    ]
    done = [one for one in run_batches(ours, (batch for batch in batches)) if one]
    assert [one[0].image for one in done] == [0, 1, 2, 3]
    for one, batch in zip(done, batches, strict=True):
        results = segmentations([prediction.result for prediction in one])
        for result, pixels, size in zip(results, batch.pixels, batch.sizes, strict=True):
            (alone,) = segmentations(ours.predict([pixels], [size]))
            assert result.labels.shape == size[::-1]
            assert (result.labels != alone.labels).mean() <= _MAX_DIFFERENT


def test_the_same_images_in_another_order_give_the_same_masks(network: LoadedModel) -> None:
    """A result does not depend on what came before."""
    ours = engine(network)
    pixels = [sample((128, 96), index) for index in range(4)]
    sizes = [(128, 96)] * 4
    first = segmentations(ours.predict(pixels, sizes))
    ours.predict([sample((333, 222))] * 3, [(333, 222)] * 3)
    again = segmentations(ours.predict(pixels, sizes))
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one.labels, other.labels)


def test_tiles_and_mirror_images_agree_with_the_cpu() -> None:
    network, pixels, size = preview_network(), sample((400, 300)), (400, 300)
    views = ViewOptions(tile=256, overlap=64, flip=True)
    (got,) = segmentations(engine(network, views=views).predict([pixels], [size]))
    plain = ExecutionConfig(torch.device("cpu"), "fp32", "torch", 1, 2)
    (expected,) = segmentations(Engine(network, plain, views=views).predict([pixels], [size]))
    assert (got.labels != expected.labels).mean() <= _MAX_DIFFERENT


def test_too_little_memory_makes_smaller_batches() -> None:
    """Other programs take all but a part of the memory: the batch is computed all the same."""
    network = preview_network()
    ours = engine(network, batch_size=16)
    pixels = [sample((1500, 1200), index) for index in range(4)] * 4
    sizes = [(1500, 1200)] * 16
    expected = segmentations(ours.predict(pixels[:4], sizes[:4]))
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(max(0, free - (3 << 30)), dtype=torch.uint8, device=CUDA)
    batches = (batch for batch in [Batch(range(16), pixels, sizes)])
    (done,) = (one for one in run_batches(ours, batches) if one)
    results = segmentations([prediction.result for prediction in done])
    del taken
    for index, result in enumerate(results):
        assert (result.labels != expected[index % 4].labels).mean() <= _MAX_DIFFERENT


def test_an_input_that_never_fits_fails_alone_and_by_name() -> None:
    ours = engine(preview_network())
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(max(0, free - (700 << 20)), dtype=torch.uint8, device=CUDA)
    side = 6000
    (result,) = ours.predict([np.zeros((side, side, 3), np.uint8)], [(side, side)])
    del taken
    assert not isinstance(result, Segmentation)
    assert "not enough memory" in result.message
    segmentations(ours.predict([sample((64, 48))], [(64, 48)]))


def test_what_float16_cannot_hold_is_done_again_in_float32() -> None:
    network = preview_network()
    with torch.no_grad():
        network.model.get_submodule("classifier.0").weight.mul_(1e6)  # type: ignore[operator]
        norm = network.model.get_submodule("classifier.1")
        norm.eval()
        norm.running_var.fill_(1.0)  # type: ignore[operator]
    (result,) = segmentations(engine(network, "fp16").predict([sample((96, 64))], [(96, 64)]))
    assert result.precision == "fp32"


def test_settings_of_the_process_are_as_before() -> None:
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = matmul.fp32_precision, conv.fp32_precision
    engine(preview_network()).predict([sample((64, 48))], [(64, 48)])
    assert (matmul.fp32_precision, conv.fp32_precision) == before


def test_the_whole_command_on_the_gpu_and_on_the_cpu(fcn: Fcn, tmp_path: Path) -> None:
    common = ("segment", SAMPLES, "--backbone", "efficientnet_lite0", "--write", "masks,color,confidence")
    fcn(*common, "--device", "cuda", "--precision", "fp32", "-o", "gpu")
    fcn(*common, "--device", "cpu", "-o", "cpu")
    records = journal_of(tmp_path / "gpu")
    assert {one["device"] for one in records.values()} == {"cuda"}
    assert {one["precision"] for one in records.values()} == {"fp32"}
    for name in ("astronaut", "chelsea", "coffee", "grace_hopper"):
        ours, theirs = (
            np.array(Image.open(tmp_path / folder / f"masks/{name}.png")) for folder in ("gpu", "cpu")
        )
        assert (ours != theirs).mean() <= _MAX_DIFFERENT


def test_auto_is_what_the_gpu_is_fast_in() -> None:
    chosen = execution.resolve_execution(InferenceOptions("cuda"))
    capability = torch.cuda.get_device_capability()
    expected = "bf16" if capability >= (8, 0) else "fp16" if capability >= (7, 0) else "fp32"
    assert chosen.precision == expected
    assert Segmenter("efficientnet_lite0", device="cuda")(SAMPLES / "chelsea.png").labels.shape == (300, 451)

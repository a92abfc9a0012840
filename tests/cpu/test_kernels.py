"""Our CPU kernels compute what the plain ones do; the oracle is the plain model in float64."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from benchmarks.material import randomise
from fcn_cli.cpu import winograd
from fcn_cli.cpu.kernels import compiler, matmul, simd_targets
from fcn_cli.cpu.kernels.compiler import Kernel
from fcn_cli.cpu.kernels.notation import KernelBuilder
from fcn_cli.cpu.kernels.simd_targets import NEON, SimdTarget
from fcn_cli.cpu.network import CpuNetwork
from fcn_cli.cpu.toom_cook import POINTS
from fcn_cli.cpu.winograd import Winograd
from fcn_cli.cpu.workspace import Workspace
from fcn_cli.inference import compiled_labels
from fcn_cli.inference.labels import Upsampler
from fcn_cli.models import registry

from ..conftest import SAMPLES, Fcn
from .conftest import FLOAT32_TARGETS, torch_threads, use


@pytest.fixture(
    autouse=True,
    # Whole networks would take too long in emulation.
    params=[each for each in FLOAT32_TARGETS if each is not NEON or NEON.runs_here()],
    ids=lambda target: target.name,
)
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SimdTarget:
    return use(request.param, request, monkeypatch)


# What is not about single kernels, and takes long.
ONE_TARGET = pytest.mark.parametrize(
    "target", [simd_targets.host_target()], ids=lambda target: target.name, indirect=True
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lay_out(x: Tensor, layout: str) -> Tensor:
    """Return an equal (h, w, channels) tensor that lies in memory otherwise."""
    if layout == "transposed":
        return x.transpose(0, 1).contiguous().transpose(0, 1)
    if layout == "part":
        wide = torch.full((x.shape[0] + 2, x.shape[1] + 3, x.shape[2] + 5), float("nan"))
        wide[1:-1, 2:-1, 3:-2] = x
        return wide[1:-1, 2:-1, 3:-2]
    return x


@pytest.mark.long
@settings(max_examples=100)
@given(
    st.sampled_from([16, 32, 48, 80]),
    st.sampled_from([16, 32, 48, 64, 112]),
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from([1, 2, 4]),
    st.sampled_from(list(POINTS)),
    st.sampled_from(["contiguous", "transposed", "part"]),
    st.sampled_from([(None, None), (0.0, None), (0.0, 6.0)]),
    st.integers(0, 2**31),
)
def test_winograd_is_the_convolution(
    channels_in: int,
    channels_out: int,
    height: int,
    width: int,
    dilation: int,
    tile: int,
    layout: str,
    limits: tuple[float | None, float | None],
    seed: int,
) -> None:
    check_winograd(channels_in, channels_out, height, width, dilation, tile, layout, limits, seed)


def check_winograd(
    channels_in: int,
    channels_out: int,
    height: int,
    width: int,
    dilation: int,
    tile: int,
    layout: str = "contiguous",
    limits: tuple[float | None, float | None] = (None, None),
    seed: int = 0,
) -> None:
    random = seeded(seed)
    x = torch.randn(height, width, channels_in, generator=random)
    weight = torch.randn(channels_out, channels_in, 3, 3, generator=random, dtype=torch.float64)
    bias = torch.randn(channels_out, generator=random, dtype=torch.float64)
    pixels = x.permute(2, 0, 1)[None].double()
    exact = F.conv2d(pixels, weight, bias, padding=dilation, dilation=dilation)[0].permute(1, 2, 0)
    # Rounding errors go with the size of what is added up, which may cancel.
    scale = x.abs().max() * weight.abs().sum((1, 2, 3)).max() + bias.abs().max()
    if limits != (None, None):
        exact = exact.clamp(*limits)
    out = torch.full((height, width, channels_out), float("nan"))
    with torch.inference_mode():
        Winograd(weight, bias, dilation, tile, limits)(lay_out(x, layout), out, Workspace())
    # Larger tiles lose more digits, most of all where few products average the errors out.
    assert (out - exact).abs().max() < {4: 3e-6, 6: 1e-5}[tile] * scale


@pytest.mark.parametrize("tile", list(POINTS))
def test_winograd_in_many_blocks(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "_BLOCK_ELEMENTS", 1)
    monkeypatch.setattr(winograd, "_MIN_BLOCK_TILES", 7)
    for dilation, height, width in ((1, 40, 30), (2, 33, 50), (4, 65, 9)):
        check_winograd(16, 32, height, width, dilation, tile)


def test_buffers_of_one_shape_serve_the_next() -> None:
    """What an earlier, larger image left behind does not show."""
    space = Workspace()
    weight = torch.randn(32, 16, 3, 3, generator=seeded(0), dtype=torch.float64)
    kernel = Winograd(weight, torch.zeros(32, dtype=torch.float64), 2, 6, (None, None))
    for height, width in ((50, 60), (13, 7), (1, 1), (20, 61)):
        x = torch.randn(height, width, 16, generator=seeded(height))
        fresh, used = torch.empty(height, width, 32), torch.empty(height, width, 32)
        kernel(x, used, space)
        kernel(x, fresh, Workspace())
        assert torch.equal(fresh, used)


def worst(logits: Tensor, exact: Tensor) -> float:
    return float((logits - exact).abs().max() / exact.abs().max())


def random_model(name: str) -> nn.Module:
    model = registry.find(name).build(21).eval()
    randomise(model)
    return model


def exact_logits(model: nn.Module, batch: Tensor) -> Tensor:
    result: Tensor = copy.deepcopy(model).double()(batch.double())
    return result


@functools.cache
def case(name: str, height: int, width: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a model, a batch and its exact logits: the same for every target, and slow in float64."""
    model, batch = random_model(name), torch.randn(1, 3, height, width, generator=seeded(1))
    with torch.inference_mode():
        return model, batch, exact_logits(model, batch)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "height", "width"),
    [
        ("resnet50", 203, 150),
        pytest.param("resnet101", 120, 161, marks=pytest.mark.slow),
        ("efficientnet_lite0", 230, 201),
    ],
)
def test_a_whole_network_is_the_plain_one(name: str, height: int, width: int) -> None:
    model, batch, exact = case(name, height, width)
    with torch.inference_mode():
        fast = CpuNetwork(model)
        logits = fast(batch)
    assert logits.shape == exact.shape
    assert worst(logits, exact) < 1e-5
    assert len(np.unique(logits.argmax(1))) > 1
    used = fast.kernels()
    assert sum(used.values()) == sum(isinstance(module, nn.Conv2d) for module in model.modules())
    assert used["pointwise"] > 10
    # The preview's one 3x3 layer without groups is small, and may go either way.
    assert any("winograd" in kernel for kernel in used) or name == "efficientnet_lite0"


@pytest.mark.long
@ONE_TARGET
def test_a_model_with_five_classes() -> None:
    model = registry.find("resnet50").build(5).eval()
    randomise(model)
    batch = torch.randn(1, 3, 100, 120, generator=seeded(1))
    with torch.inference_mode():
        assert worst(CpuNetwork(model)(batch), exact_logits(model, batch)) < 1e-5


@pytest.mark.long
def test_small_inputs_down_to_one_pixel() -> None:
    model = random_model("resnet50")
    fast = CpuNetwork(model)
    with torch.inference_mode():
        for height, width in ((1, 1), (7, 3), (9, 90), (33, 17)):
            batch = torch.randn(1, 3, height, width, generator=seeded(height))
            # A handful of logits: their largest is not large, and errors do not average out.
            assert worst(fast(batch), exact_logits(model, batch)) < 5e-5


@pytest.mark.long
@ONE_TARGET
def test_neighbours_and_memory_format_do_not_change_a_bit() -> None:
    fast = CpuNetwork(random_model("resnet50"))
    batch = torch.randn(3, 3, 70, 90, generator=seeded(3))
    with torch.inference_mode():
        together = fast(batch)
        assert torch.equal(together, fast(batch.contiguous(memory_format=torch.channels_last)))
        for index in range(3):
            assert torch.equal(fast(batch[index : index + 1])[0], together[index])


def test_the_workspace_is_the_largest_shapes_and_no_more() -> None:
    fast = CpuNetwork(random_model("efficientnet_lite0"))
    with torch.inference_mode():
        fast(torch.zeros(1, 3, 300, 300))
        most = fast.workspace_bytes
        for side in range(20, 300, 28):
            fast(torch.zeros(1, 3, side, 320 - side))
    assert 0 < fast.workspace_bytes <= 1.5 * most


def test_the_choice_of_kernel() -> None:
    # The head of the ResNets at 520x693; phases of 3x3; one feature; few channels and features, where sums
    # cost more than they save.
    assert winograd.choose_tile(65, 87, 1, 2048, 512) == 6
    assert winograd.choose_tile(9, 11, 4, 512, 512) == 4
    assert winograd.choose_tile(1, 1, 1, 512, 512) is None
    assert winograd.choose_tile(5, 5, 1, 32, 32) is None


@settings(max_examples=60)
@given(
    st.integers(1, 200),
    st.integers(1, 20),
    st.integers(1, 6),
    st.booleans(),
    st.sampled_from([(None, None), (0.0, None), (0.0, 6.0)]),
    st.sampled_from([1, 2, 5]),
    st.integers(0, 2**31),
)
def test_a_pointwise_product_is_the_product(
    rows: int,
    lines: int,
    panels: int,
    add: bool,
    limits: tuple[float | None, float | None],
    threads: int,
    seed: int,
) -> None:
    depth, columns = lines * matmul.DEPTH, panels * 16
    random = seeded(seed)
    # What lies around the result must stay.
    around = torch.full((rows + 2, columns), 7.0)
    result = around[1:-1]
    result.copy_(torch.randn(rows, columns, generator=random))
    left, right = torch.randn(rows, depth, generator=random), torch.randn(depth, columns, generator=random)
    bias = torch.zeros(matmul.padded(columns))
    bias[:columns] = torch.randn(columns, generator=random)
    exact = left.double() @ right.double() + bias[:columns] + (result if add else 0)
    if limits != (None, None):
        exact = exact.clamp(*limits)
    with torch_threads(threads):
        matmul.pointwise(left, matmul.in_panels(right), bias, result, limits, Workspace(), add=add)
    assert (result - exact).abs().max() < 1e-6 * depth
    assert (around[[0, -1]] == 7).all()


@pytest.mark.long
@ONE_TARGET
def test_threads_change_nothing() -> None:
    """Neither how many there are, nor whose they are."""
    fast = CpuNetwork(random_model("resnet50"))
    batch = torch.randn(1, 3, 150, 170, generator=seeded(3))
    results = []
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        for threads, openmp in ((1, True), (2, True), (3, True), (3, False), (1, False)):
            if not openmp:
                patch.setattr(compiler, "_openmp", lambda: None)
            with torch_threads(threads):
                results.append(fast(batch))
    # torch's own convolutions, in a few layers, may sum up in another order.
    assert all(worst(result, results[0]) < 1e-6 for result in results)


def test_threads_do_not_change_a_bit() -> None:
    """However many there are: items are divided otherwise, sums are not."""
    pixels, right, bias = torch.randn(500, 64), matmul.in_panels(torch.randn(64, 96)), torch.randn(96)
    weight, image = torch.randn(96, 144, 3, 3).double(), torch.randn(40, 33, 144)
    layer, results = Winograd(weight, torch.zeros(96).double(), 2, 6, (0.0, None)), []
    for threads in (1, 2, 3, 16, 64):
        product, convolved = torch.empty(500, 96), torch.empty(40, 33, 96)
        with torch_threads(threads):
            matmul.pointwise(pixels, right, bias, product, (None, None), Workspace(), add=False)
            layer(image, convolved, Workspace())
        results.append((product, convolved))
    for result in results:
        assert all(torch.equal(one, same) for one, same in zip(result, results[0], strict=True))


OPENMP = [*(Path(torch.__file__).parent / "lib").glob("libgomp*")]


@pytest.mark.skipif(not OPENMP, reason="this PyTorch comes without GNU's OpenMP")
def test_openmp_is_found_by_the_names_that_macos_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: SimdTarget
) -> None:
    (tmp_path / "lib").mkdir()
    monkeypatch.setattr(torch, "__file__", str(tmp_path / "__init__.py"))
    assert compiler._openmp.__wrapped__() is None
    (tmp_path / "lib" / "libomp.dylib").symlink_to(OPENMP[0])
    assert compiler._openmp.__wrapped__() is not None


def test_not_a_number_stays_one() -> None:
    pixels = torch.ones(3, 16)
    pixels[1, 4] = float("nan")
    result = torch.empty(3, 32)
    ones = matmul.in_panels(torch.ones(16, 32))
    matmul.pointwise(pixels, ones, torch.zeros(32), result, (0.0, 6.0), Workspace(), add=False)
    assert result[1].isnan().all()
    assert (result[[0, 2]] == 6).all()


@settings(max_examples=60)
@given(
    st.sampled_from([1, 2, 5, 21, 255]),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 150),
    st.integers(1, 300),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_labels_are_the_argmax_of_interpolated_logits(
    classes: int, h: int, w: int, height: int, width: int, compiled: bool, seed: int
) -> None:
    logits = torch.randn(classes, h, w, generator=seeded(seed))
    labels = Upsampler(compiled=compiled).to_size(logits, height, width).labels
    wide = F.interpolate(logits[None].double(), (height, width), mode="bilinear", align_corners=False)[0]
    # Positions are float32's, as torchvision's are: logits that are that near may change places.
    assert labels.shape == (height, width)
    assert (wide.amax(0) - wide.gather(0, labels[None].long())[0]).max() < 1e-4


def test_the_lowest_of_equal_classes_wins_in_many_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_labels, "_CHUNK_ELEMENTS", 1)
    logits = torch.randn(3, 20, 30, generator=seeded(0)).repeat(2, 1, 1)
    labels = Upsampler().to_size(logits, 190, 170).labels
    assert set(labels.flatten().tolist()) == {0, 1, 2}
    assert torch.equal(labels, Upsampler().to_size(logits[:3], 190, 170).labels)
    assert not Upsampler().to_size(torch.zeros(5, 3, 3), 10, 10).labels.any()


def test_what_a_kernel_cannot_read_is_refused() -> None:
    good, panels, bias = torch.zeros(4, 16), matmul.in_panels(torch.zeros(16, 32)), torch.zeros(32)
    for bad in (torch.zeros(16, 4).t(), torch.zeros(4, 16, dtype=torch.float64), torch.zeros(4, 20)[:, :16]):
        with pytest.raises(ValueError, match="tensor"):
            matmul.pointwise(bad, panels, bias, torch.empty(4, 32), (None, None), Workspace(), add=False)
    matmul.pointwise(good, panels, bias, torch.empty(4, 32), (None, None), Workspace(), add=False)


def test_a_task_has_every_field(target: SimdTarget) -> None:
    kernel = Kernel("nothing", ("one", "two"), build_nothing, target)
    kernel(3, one=1, two=2)
    with pytest.raises(TypeError, match="two"):
        kernel(3, one=1)


def build_nothing(builder: KernelBuilder) -> None:
    with builder.parallel_for():
        pass


@pytest.mark.long
@ONE_TARGET
def test_what_is_not_known_is_refused() -> None:
    model = random_model("resnet50")
    model.get_submodule("classifier").add_module("more", nn.Sigmoid())
    with pytest.raises(TypeError, match="Sigmoid"):
        CpuNetwork(model)


@pytest.mark.long
@ONE_TARGET
def test_both_kernels_give_the_same_masks_and_verbose_names_them(fcn: Fcn, tmp_path: Path) -> None:
    common = ("segment", SAMPLES / "chelsea.png", "--backbone", "efficientnet_lite0", "-v")
    fast = fcn(*common, "-o", "fast", "--kernels", "fast")
    plain = fcn(*common, "-o", "plain", "--kernels", "torch")
    assert "winograd" in fast.stderr
    assert "winograd" not in plain.stderr
    one, two = (np.array(Image.open(tmp_path / folder / "masks/chelsea.png")) for folder in ("fast", "plain"))
    assert len(np.unique(one)) > 1
    assert (one != two).mean() < 0.001
    refused = fcn(*common, "-o", "fast", "--kernels", "torch", code=2)
    assert "kernels" in refused.stderr

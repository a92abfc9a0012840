"""Convolutions by AMX against NumPy and PyTorch, at the edges of tiles, blocks, groups, chunks and items."""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from llvmlite import binding
from torch import Tensor, nn

from fcn_cli.cpu.amx_layers import AmxLayers, as_features, as_pixels, fastest_layers
from fcn_cli.cpu.convolution import NO_CLAMP, RELU
from fcn_cli.cpu.kernels import amx, simd_targets
from fcn_cli.cpu.kernels.arguments import Clamp
from fcn_cli.cpu.kernels.compiler import Kernel
from fcn_cli.cpu.kernels.simd_targets import AVX512, AVX512_BF16
from fcn_cli.cpu.layers import CompiledLayers
from fcn_cli.cpu.onednn_layers import OnednnLayers
from fcn_cli.cpu.workspace import Workspace, prefer_huge_pages
from fcn_cli.models import registry
from fcn_cli.models.batchnorm_folding import Folded

from .conftest import torch_threads

needs_amx = pytest.mark.usefixtures("tiles")


@pytest.fixture(scope="session")
def emulated_tiles(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Load functions that do what the instructions of AMX do."""
    library = tmp_path_factory.mktemp("amx") / "amx_tiles.so"
    source = Path(__file__).with_name("amx_tiles.c")
    subprocess.run(["cc", "-O3", "-march=native", "-shared", "-fPIC", "-o", library, source], check=True)
    binding.load_library_permanently(str(library))


@pytest.fixture
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the kernels run, on this processor's tiles or on emulated ones."""
    if amx.available():
        return
    if not AVX512_BF16.runs_here() or shutil.which("cc") is None:
        pytest.skip("needs AMX, or AVX512_BF16 and a C compiler to emulate it")
    request.getfixturevalue("emulated_tiles")

    @functools.cache
    def emulated(*arguments: Any, **options: Any) -> Kernel:
        kernel = amx_kernel(*arguments, **options)
        kernel.ir = re.sub(r"llvm\.x86\.(ldtilecfg|t[a-z0-9]+)\b", r"emulated_\1", kernel.ir)
        return kernel

    monkeypatch.setattr(amx, "convolution_kernel", emulated)
    monkeypatch.setattr(amx, "_permitted", lambda: True)


amx_kernel = amx.convolution_kernel.__wrapped__


def integers(*shape: int, seed: int = 0) -> Tensor:
    """Small integers: their sums are exact in float32."""
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).float()


def check(
    height: int,
    width: int,
    channels: int,
    columns: int,
    taps: int,
    dilation: int = 1,
    clamp: Clamp = RELU,
    *,
    add: bool = False,
) -> None:
    """Compare with PyTorch in float64, rounded once; what lies around stays zero."""
    space = Workspace()
    image, residual = integers(1, height, width, channels), integers(1, height, width, columns, seed=1)
    weights, bias = integers(columns, channels, taps, taps, seed=2), integers(columns, seed=3)
    result = as_features(residual.bfloat16(), space, "result")
    convolve = amx.Convolution(amx.Filters(amx.in_panels(weights), bias), clamp, dilation)
    convolve(as_features(image.bfloat16(), space), result, space, add=add)
    batch = image.double().permute(0, 3, 1, 2)
    padding = dilation * (taps // 2)
    exact = F.conv2d(batch, weights.double(), bias.double(), padding=padding, dilation=dilation)
    exact = exact.permute(0, 2, 3, 1) + (residual if add else 0)
    if clamp != (None, None):
        exact = exact.clamp(*clamp)
    assert torch.equal(as_pixels(result), exact.float().bfloat16())
    memory = torch.empty(0, dtype=torch.bfloat16).set_(result.untyped_storage())
    assert memory.count_nonzero() == result.count_nonzero()


@needs_amx
@pytest.mark.parametrize("width", [1, 27, 28, 29, 61])
def test_images_that_end_within_a_block_or_with_it(width: int) -> None:
    for height in (1, 8):
        check(height, width, 32, 64, 1, add=width % 2 == 0)
        for dilation in range(1, amx.BORDER + 1):
            check(height, width, 32, 32, 3, dilation)


@needs_amx
@pytest.mark.parametrize("channels", [32, 256, 288, 512, 1056, 1088])
@pytest.mark.parametrize("add", [False, True])
def test_one_group_of_channels_two_and_more(channels: int, add: bool) -> None:
    check(3, 20, channels, 96, 1, add=add)
    check(3, 20, channels, 32, 3, dilation=2, add=add)


@needs_amx
@pytest.mark.parametrize("taps", [1, 3])
def test_several_items_of_different_lengths(taps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    check(23, 40, 64, 64, taps, add=True)
    monkeypatch.setattr(amx, "_CHUNK", 64)
    monkeypatch.setattr(amx, "_IMAGE_BYTES", 1)
    check(13, 40, 192, 64, taps, 4, add=True)


@needs_amx
@pytest.mark.parametrize("clamp", [(None, None), (0.0, 6.0), (None, 1.0), (-2.0, None)])
def test_clamps(clamp: Clamp) -> None:
    check(4, 9, 64, 32, 3, clamp=clamp)


@needs_amx
def test_threads_do_not_change_a_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 40, 50, 1024, generator=generator).bfloat16()
    panels = amx.in_panels(torch.randn(64, 1024, 3, 3, generator=generator))
    filters = amx.Filters(panels, torch.zeros(64))
    results = []
    for threads in (1, 2, 3):
        with torch_threads(threads):
            space = Workspace()
            result = amx.take_features(space, "result", 40, 50, 64)
            amx.Convolution(filters, RELU)(as_features(image, space), result, space)
            results.append(as_pixels(result))
    assert all(torch.equal(result, results[0]) for result in results)


@needs_amx
@pytest.mark.parametrize("channels", [32, 512, 1056])
@pytest.mark.parametrize("classes", [2, 21, 33])
def test_logits_are_as_exact_as_float32(channels: int, classes: int) -> None:
    """Weights of 24 bits lose nothing; what is left is the error of sums."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 7, 30, channels, generator=generator).bfloat16()
    conv = nn.Conv2d(channels, classes, 1)
    with torch.no_grad():
        exact = conv.double()(x.double().permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    layer = AmxLayers().last(Folded.of(conv.float()), NO_CLAMP)
    assert layer.kernel == "amx"
    for features in (x, as_features(x, Workspace())):
        logits = layer(features, Workspace(), "logits")
        assert logits.dtype == torch.float32
        assert logits.shape == (1, 7, 30, classes)
        assert (logits - exact).abs().max() < 3e-6


@needs_amx
def test_tensors_that_move_or_change_their_size() -> None:
    """A layer remembers where its tensors are; memory is reused, grows, and is another one's."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(64, 256, 3, 3, generator=generator) / 48
    convolve = amx.Convolution(amx.Filters(amx.in_panels(weights), torch.zeros(64)), NO_CLAMP)
    spaces = Workspace(), Workspace()
    sizes = [(5, 6), (5, 6), (40, 30), (5, 6), (6, 5), (40, 30), (40, 30)]
    for turn, (height, width) in enumerate(sizes):
        space = spaces[turn // 2 % 2]
        x = torch.randn(1, height, width, 256, generator=generator).bfloat16()
        exact = F.conv2d(x.float().permute(0, 3, 1, 2), weights.bfloat16().float(), padding=1)
        result = amx.take_features(space, "result", height, width, 64)
        with torch_threads(1 + turn % 2):
            convolve(as_features(x, space), result, space)
        assert (as_pixels(result) - exact.permute(0, 2, 3, 1)).abs().max() < 0.03
        # Other layers take more memory for their sums.
        space.take("sums", 2, 5000 * turn)


@needs_amx
def test_what_the_wrapper_refuses() -> None:
    space = Workspace()
    image, result = (amx.take_features(space, name, 5, 6, 64) for name in ("image", "result"))
    panels, bias = amx.in_panels(torch.zeros(64, 64, 3, 3)), torch.zeros(64)

    def convolve(image: Tensor = image, result: Tensor = result, **changed: Any) -> None:
        arguments = {"filters": amx.Filters(panels, bias), "dilation": 1, **changed}
        amx.Convolution(clamp=RELU, **arguments)(image, result, space)

    in_float32 = amx.take_features(space, "float32", 5, 6, 64, torch.float32)
    parts = amx.in_three_panels(torch.zeros(64, 64, 1, 1))
    wrong: list[tuple[str, object]] = [
        ("image", in_float32),
        ("result", in_float32),
        ("filters", amx.Filters(parts, bias)),
        ("image", image.contiguous()),
        ("image", image.float()),
        ("image", image[:, :, 1:]),
        ("image", image[1:]),
        ("image", amx.take_features(space, "other", 5, 7, 64)),
        ("image", result),
        ("result", amx.take_features(space, "other", 5, 6, 32)),
        ("result", result.contiguous()),
        ("filters", amx.Filters(torch.zeros(64, 64, 3, 3), bias)),
        ("filters", amx.Filters(amx.in_panels(torch.zeros(64, 32, 3, 3)), bias)),
        ("filters", amx.Filters(amx.in_panels(torch.zeros(64, 64, 2, 2)), bias)),
        ("filters", amx.Filters(panels, torch.zeros(32))),
        ("dilation", 0),
        ("dilation", amx.BORDER + 1),
    ]
    for name, value in wrong:
        with pytest.raises(ValueError, match=r"."):
            convolve(**{name: value})  # type: ignore[arg-type]
    convolve()


@needs_amx
def test_layers_take_and_return_either_layout() -> None:
    """Shapes that the kernels lack are oneDNN's, on pixels in the usual order."""
    layers, space = AmxLayers(), Workspace()
    image = torch.randn(1, 9, 11, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    for conv, kernel in (
        (nn.Conv2d(64, 96, 1, stride=2), "amx"),
        (nn.Conv2d(64, 32, 3, padding=4, dilation=4), "amx"),
        (nn.Conv2d(64, 32, 3, padding=5, dilation=5), "onednn"),
        (nn.Conv2d(64, 32, 3, stride=2, padding=1), "onednn"),
        (nn.Conv2d(64, 48, 1), "onednn"),
    ):
        layer = layers.convolution(Folded.of(conv), RELU)
        assert layer.kernel == kernel
        exact = conv(image.float().permute(0, 3, 1, 2)).relu().permute(0, 2, 3, 1)
        for x in (image, as_features(image, space, "x")):
            out = as_pixels(layer(x, space, "out"))
            assert (out - exact).abs().max() < 0.02
    for columns in (96, 48):
        conv, residual = nn.Conv2d(64, columns, 1), torch.ones(1, 9, 11, columns).bfloat16()
        exact = (conv(image.float().permute(0, 3, 1, 2)) + 1).relu().permute(0, 2, 3, 1)
        out = layers.adding(Folded.of(conv), RELU).add_to(residual, as_features(image, space, "x"), space)
        assert (as_pixels(out) - exact).abs().max() < 0.03


@needs_amx
def test_networks_without_bottlenecks_are_onednns(monkeypatch: pytest.MonkeyPatch) -> None:
    resnet, preview = (registry.find(name).build(21) for name in ("resnet50", "efficientnet_lite0"))
    assert isinstance(fastest_layers(resnet), AmxLayers)
    assert isinstance(fastest_layers(preview), OnednnLayers)
    monkeypatch.setattr(simd_targets, "simd_target", lambda: AVX512)
    assert isinstance(fastest_layers(resnet), CompiledLayers)


def test_where_the_system_refuses_amx_it_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def __init__(self, _name: None) -> None: ...

        def syscall(self, *_arguments: int) -> int:
            return -1

    monkeypatch.setattr(simd_targets, "simd_target", lambda: AVX512_BF16)
    monkeypatch.setattr(simd_targets, "host_features", lambda: dict.fromkeys(("amx-tile", "amx-bf16"), True))
    monkeypatch.setattr(ctypes, "CDLL", Refusing)
    amx._permitted.cache_clear()
    try:
        assert not amx.available()
        one = torch.zeros(1)
        with pytest.raises(RuntimeError, match="AMX"):
            amx.Convolution(amx.Filters(one, one), RELU)(one, one, Workspace())
    finally:
        amx._permitted.cache_clear()


def test_the_innermost_loop_has_four_products_a_step_and_no_more_tiles() -> None:
    code = amx.convolution_kernel(AVX512_BF16, steps=amx.TAPS, add=False, groups=1, chunked=False).ir
    assert code.count('call void @"llvm.x86.tdpbf16ps"') == 9 * 4
    assert code.count('call void @"llvm.x86.tileloadd64"') == 9 * 4
    assert len(amx.configuration()) == 64


def test_huge_pages_change_nothing_in_memory() -> None:
    memory = torch.arange(5_000_000)
    assert prefer_huge_pages(memory) is memory
    assert torch.equal(memory, torch.arange(5_000_000))
    space = Workspace()
    space.take_zeroed("name", 3, 5).fill_(1)
    assert space.take_zeroed("name", 3, 5).sum() == 15
    assert space.take_zeroed("name", 5, 3).sum() == 0

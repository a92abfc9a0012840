"""`python -m fcn_cli.cpu.kernels` prints a kernel for the instruction set that is asked for."""

from __future__ import annotations

import platform
import re
import subprocess
import sys

import pytest

from fcn_cli.cpu.kernels import __main__ as listing
from fcn_cli.cpu.kernels import matmul, simd_targets
from fcn_cli.cpu.kernels.simd_targets import SimdTarget

KERNELS = ("pointwise", "batched_product", "transform_input", "transform_output", "argmax")
ON_X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="x86's registers and instructions")


def listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["kernels", *arguments])
    listing.main()
    return capsys.readouterr().out


@pytest.mark.long
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["AVX512", "avx2", "NEON", "BASELINE"])
@ON_X86
def test_a_kernel_has_its_targets_vectors(
    kernel: str, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target: SimdTarget = getattr(simd_targets, name.upper())
    code = listed(capsys, monkeypatch, kernel, "--target", name, "--format", "ir")
    assert f'define void @"{kernel}"(ptr ' in code
    assert f"<{target.lanes} x float>" in code
    assembly = listed(capsys, monkeypatch, kernel, "--target", name)
    assert f"{kernel}:" in assembly
    assert ("zmm" in assembly) == (name == "AVX512")
    assert ("ymm" in assembly) == (name == "avx2")
    assert ("v0.4s" in assembly) == (name == "NEON")
    # Without FMA, a multiply-add is two instructions.
    assert ("vfmadd" in assembly or "fmla" in assembly) == (name != "BASELINE")


@ON_X86
def test_options_change_the_kernel(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    products = {
        listed(capsys, monkeypatch, "pointwise", "--format", "ir", *more)
        for more in ([], ["--deep"], ["--add"], ["--partial"], ["--bf16"])
    }
    transforms = {
        listed(capsys, monkeypatch, "transform_input", "--format", "ir", "--tile", *more)
        for more in (["4"], ["6"], ["6", "--bf16"])
    }
    assert (len(products), len(transforms)) == (5, 3)
    tiles = {
        listed(capsys, monkeypatch, "amx_convolution", "--target", "AVX512_BF16", *more)
        for more in ([], ["--steps", "9"], ["--steps", "3"], ["--add"])
    }
    assert len(tiles) == 4
    assert all("tdpbf16ps" in code for code in tiles)


@pytest.mark.long
def test_the_command_prints_this_machines_code_and_refuses_what_is_not_known() -> None:
    command = [sys.executable, "-m", "fcn_cli.cpu.kernels"]
    done = subprocess.run([*command, "argmax"], capture_output=True, text=True, check=True)
    assert "argmax:" in done.stdout
    assert done.stderr == ""


def test_a_wrong_name_is_refused_with_the_right_ones(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments in (
        ["gemm"],
        ["argmax", "--target", "SSE"],
        ["transform_input", "--tile", "5"],
        ["amx_convolution", "--target", "AVX2"],
    ):
        with pytest.raises(SystemExit) as ended:
            listed(capsys, monkeypatch, *arguments)
        assert ended.value.code == 2
        assert "choose from" in capsys.readouterr().err


@pytest.mark.parametrize("target", [simd_targets.AVX512, simd_targets.AVX2], ids=lambda each: each.name)
@ON_X86
def test_the_innermost_loop_of_a_product_keeps_its_sums_in_registers(target: SimdTarget) -> None:
    """One load of each vector, one broadcast of each factor, rows x vectors multiply-adds, and no stack."""
    for kernel in (
        matmul.pointwise_kernel(target, add=True, whole=False, deep=True),
        matmul.batched_kernel(target, deep=False),
    ):
        blocks = re.split(r"^\.LBB\w+:", kernel.assembly(), flags=re.MULTILINE)
        (block,) = [block for block in blocks if "prefetcht0" in block and "vfmadd" in block]
        loop = block.partition("\tj")[0]
        assert loop.count("vfmadd") == target.rows * target.vectors
        assert loop.count("vbroadcastss") == target.rows
        assert loop.count("vmovups") == target.vectors
        assert "%rsp" not in loop


def test_the_innermost_loop_of_a_product_for_arm_does_so_too() -> None:
    target = simd_targets.NEON
    for kernel in (
        matmul.pointwise_kernel(target, add=True, whole=False, deep=True, bf16=False),
        matmul.batched_kernel(target, deep=False),
    ):
        blocks = re.split(r"^\.LBB\w+:", kernel.assembly(), flags=re.MULTILINE)
        (block,) = [block for block in blocks if "prfm" in block and "fmla" in block]
        loop = block.partition("\tb.")[0]
        assert loop.count("fmla") == target.rows * target.vectors
        assert "sp" not in re.findall(r"\w+", loop)


@ON_X86
def test_bfloat16_has_its_instructions_where_the_target_has() -> None:
    """As the loop in float32, with dot products of pairs in the place of multiply-adds."""
    target = simd_targets.AVX512_BF16
    product = matmul.pointwise_kernel(target, add=True, whole=False, deep=True, bf16=True).assembly()
    (loop,) = [
        block.partition("\tj")[0]
        for block in re.split(r"^\.LBB\w+:", product, flags=re.MULTILINE)
        if "prefetcht0" in block and "vdpbf16ps" in block
    ]
    assert loop.count("vdpbf16ps") == target.rows * target.vectors
    assert loop.count("vmovups") == target.vectors
    assert "%rsp" not in loop
    assert "vcvtneps2bf16" in product
    other = matmul.pointwise_kernel(
        simd_targets.AVX512, add=True, whole=False, deep=True, bf16=True
    ).assembly()
    assert "vfmadd" in other
    assert "bf16" not in other.replace("bf16:", "")

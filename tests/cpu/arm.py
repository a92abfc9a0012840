"""An ARM processor under qemu-user, on which kernels for NEON run as they are compiled for it.

Their tensors are in this process: what `kernels.arguments` gave the address of is sent and
fetched back.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from fcn_cli.cpu.kernels import arguments, compiler, simd_targets
from fcn_cli.cpu.kernels.compiler import Kernel
from fcn_cli.cpu.kernels.notation import ITEMS
from fcn_cli.cpu.kernels.simd_targets import NEON

_GCC, _LD, _QEMU = "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-ld", "qemu-aarch64"
_SYSTEM = "/usr/aarch64-linux-gnu"
_THREADS = 2

_data_pointer = arguments.data_pointer


@functools.cache
def missing() -> str | None:
    """Return why there is no such processor, or None."""
    for tool in (_GCC, _LD, _QEMU):
        if shutil.which(tool) is None:
            return f"{tool} is not installed (Debian: qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross)"
    return None


class Processor:
    """Runs kernels one after the other; `folder` is for files."""

    def __init__(self, folder: Path) -> None:
        driver, source = folder / "driver", Path(__file__).with_name("arm_driver.c")
        subprocess.run([_GCC, "-O1", "-o", driver, source, "-ldl"], check=True)
        self._folder = folder
        self._command = [_QEMU, "-L", _SYSTEM, str(driver)]
        self._process: subprocess.Popen[bytes] | None = None
        self._tensors: dict[int, Tensor] = {}

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()

    def data_pointer(self, tensor: Tensor, dtype: torch.dtype = torch.float32) -> int:
        """Take the place of `arguments.data_pointer`: remember whose address it is."""
        address = _data_pointer(tensor, dtype)
        self._tensors[address] = tensor
        return address

    def task(self, kernel: Kernel, items: int, **values: int | float) -> Callable[[], None]:
        """Take the place of `Kernel.task`."""
        numbers = {ITEMS: items, **values}
        return lambda: self._run(kernel, [numbers.get(name, 0) for name in kernel._field_indices], items)

    def _run(self, kernel: Kernel, values: list[int | float], items: int) -> None:
        tensors = {address: tensor for address, tensor in self._tensors.items() if address in values}
        self._tensors.clear()
        places, sizes = list(tensors), [_extent(tensor) for tensor in tensors.values()]
        numbers = [value if isinstance(value, int) else compiler._bits(value) for value in values]
        fields = [(0, places.index(each)) if each in tensors else (each, -1) for each in numbers]
        request = struct.pack(
            "512s64s3q", *self._library(kernel), min(_THREADS, items), len(fields), len(sizes)
        )
        request += b"".join(struct.pack("2q", *field) for field in fields)
        for address, size in zip(places, sizes, strict=True):
            request += struct.pack("q", size) + ctypes.string_at(address, size)
        answer = self._ask(request, sum(sizes))
        for address, size in zip(places, sizes, strict=True):
            ctypes.memmove(address, answer[:size], size)
            answer = answer[size:]

    def _ask(self, request: bytes, size: int) -> bytes:
        if self._process is None:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(request)
        self._process.stdin.flush()
        answer = self._process.stdout.read(size)
        if len(answer) < size:
            ended, self._process = self._process.wait(), None
            raise AssertionError(
                f"the kernel ended qemu ({ended}): it left its tensors, or does not run on ARM"
            )
        return answer

    def _library(self, kernel: Kernel) -> tuple[bytes, bytes]:
        """Return the file of a kernel as a shared library, and its function."""
        path = self._folder / f"{hashlib.sha256(kernel.ir.encode()).hexdigest()}.so"
        if not path.exists():
            module, machine = compiler.parse(kernel.ir, NEON.triple, *simd_targets.processor(NEON))
            whole = path.with_suffix(".o")
            whole.write_bytes(machine.emit_object(module))
            subprocess.run([_LD, "-shared", "-o", path, whole], check=True)
        return str(path).encode(), kernel._name.encode()


def _extent(tensor: Tensor) -> int:
    """Return the bytes from a tensor's first element to its last one."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.itemsize

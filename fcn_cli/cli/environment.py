"""The contents of ``fcn info``: versions, devices, threads."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

import PIL
import torch
from PIL import features

from .. import __version__
from ..common import resources
from ..common.wording import counted
from ..cpu.kernels import simd_targets
from ..inference.execution import ONEDNN_PRIMITIVES, resolve_execution
from ..models import weights


def describe() -> list[tuple[str, str]]:
    """Return (name, value) pairs about this installation and this machine."""
    auto = resolve_execution()
    quota = resources.cgroup_cpus() or "none"
    memory = resources.available_memory()
    cuda = [
        f"cuda:{index} {torch.cuda.get_device_name(index)}"
        for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    ]
    optional = [name for name in ("avif", "webp", "jpg_2000") if features.check(name)]
    return [
        ("fcn", __version__),
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        ("torch", torch.__version__),
        ("torchvision", version("torchvision")),
        ("pillow", f"{PIL.__version__} with {', '.join(optional)}"),
        ("devices", ", ".join(["cpu", *cuda])),
        (
            "auto",
            f"{auto.device}, {auto.precision}, {auto.kernels} kernels, batches of {auto.batch_size}, "
            f"{counted(auto.threads, 'thread')}",
        ),
        ("cpu", f"{resources.describe()}, {torch.backends.cpu.get_cpu_capability()}"),
        ("cpu limits", f"affinity {resources.affinity()} of {os.cpu_count()}, cgroup quota {quota}"),
        ("openmp", f"waiting threads: {_wait_policy()}"),
        ("kernels", simd_targets.describe()),
        ("onednn", f"cache of {ONEDNN_PRIMITIVES} primitives"),
        ("memory", f"{memory / 1e9:.1f} GB available" if memory is not None else "unknown"),
        ("weights in", ", ".join(str(directory) for directory in weights.search_directories())),
    ]


def _wait_policy() -> str:
    chosen = resources.openmp_variables().items()
    return ", ".join(f"{name}={value}" for name, value in chosen) or "as OpenMP decides"

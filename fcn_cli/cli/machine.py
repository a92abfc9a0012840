"""The commands about this machine: bench, info, weights."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import typer

from .. import __version__
from ..common import resources
from ..common.wording import alternatives, counted
from ..models.registry import DEFAULT_BACKBONE
from . import command_line, options, values
from .console import print_figures, write_line

weights_app = typer.Typer(
    help="List, download and verify the networks' weights.", cls=command_line.Group, rich_markup_mode=None
)


def bench(
    backbone: options.BackboneOption = DEFAULT_BACKBONE,
    size: options.Size = None,
    tile: options.Tile = None,
    overlap: options.Overlap = None,
    batch_size: options.BatchSize = "auto",
    rounds: options.Rounds = 5,
    device: options.Device = "auto",
    threads: options.Threads = "auto",
    kernels: options.KernelsOption = options.Kernels.AUTO,
    precision: options.PrecisionOption = options.Precision.AUTO,
    as_json: options.FiguresAsJson = False,
    quiet: options.Quiet = False,  # noqa: ARG001 - it prints data only
    verbose: options.Verbose = False,  # noqa: ARG001 - for `__main__`
) -> None:
    """Benchmark this machine: images/s of plain torchvision and of fcn, with random weights.

    torchvision runs as on the PyTorch Hub page, with its auxiliary head, and without it. With --tile, the
    time per megapixel of a large image in tiles is measured instead.
    """
    from ..evaluation import bench as benchmark
    from ..inference.execution import resolve_execution
    from ..inference.options import InferenceOptions, ViewOptions
    from . import tables

    execution = resolve_execution(InferenceOptions(device, precision, kernels, batch_size, threads))
    views = ViewOptions(tile, overlap)
    if tile is not None:
        size = size or benchmark.DEFAULT_TILED_SIZE
        tiled = benchmark.measure_tiles(backbone, size, execution, views, rounds)
        print_figures(tiled.as_json(), tables.tile_bench, as_json=as_json)
        return
    width, height = size or benchmark.DEFAULT_SIZE
    # Where our kernels were not measured yet, `auto` takes PyTorch's: which is faster is what users can tell.
    chosen = kernels, execution.device.type, execution.precision, execution.kernels
    unmeasured = chosen == (options.Kernels.AUTO, "cpu", "fp32", "torch")
    measured = benchmark.measure(backbone, width, height, execution, rounds, own_kernels=unmeasured)
    print_figures(measured.as_json(), tables.bench, as_json=as_json)


def info(
    quiet: options.Quiet = False,  # noqa: ARG001 - it prints data only
    verbose: options.Verbose = False,  # noqa: ARG001 - for `__main__`
) -> None:
    """Print versions, devices, cached weights and thread settings."""
    for name, value in _describe():
        write_line(f"{name:20}{value}", sys.stdout)
    list_weights()


def _describe() -> list[tuple[str, str]]:
    """Return (name, value) pairs about this installation and this machine."""
    import PIL
    import torch
    from PIL import features

    from ..cpu.kernels import simd_targets
    from ..inference.execution import ONEDNN_PRIMITIVES, resolve_execution
    from ..models import weights

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
        # PyTorch and LLVM have names of their own; where the system has none, theirs say what it is.
        (
            "cpu",
            f"{resources.describe()}, {simd_targets.host_processor()}, "
            f"{torch.backends.cpu.get_cpu_capability()}",
        ),
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


@weights_app.callback(invoke_without_command=True)
def _weights(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_weights()


@weights_app.command("list", cls=command_line.Command)
def list_weights(
    quiet: options.Quiet = False,  # noqa: ARG001 - it prints data only
    verbose: options.Verbose = False,  # noqa: ARG001 - for `__main__`
) -> None:
    """List the weights file of each backbone, or where to download it."""
    from ..models import registry, weights

    for name, backbone in registry.BACKBONES.items():
        if isinstance(backbone.weights, registry.BundledWeights):
            place = f"bundled ({backbone.weights.path})"
        else:
            found = weights.cached(backbone.weights)
            place = str(found) if found else f"not downloaded ({weights.download_url(backbone.weights)})"
        write_line(f"{name:20}{place}", sys.stdout)


@weights_app.command("fetch", cls=command_line.Command)
def fetch_weights(
    names: options.Backbones,
    directory: options.WeightsDirectory = None,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,  # noqa: ARG001 - for `__main__`
) -> None:
    """Download official weights, verify them, and print their paths."""
    from ..models import download, registry
    from .display import ProgressBar

    for name in registry.BACKBONES if values.ALL in names else names:
        official = registry.find(name).weights
        if isinstance(official, registry.BundledWeights):
            write_line(str(official.path), sys.stdout)
            continue
        path = download.fetch(
            official, Path(directory) if directory else None, progress=ProgressBar(quiet=quiet).downloading
        )
        write_line(str(path), sys.stdout)


@weights_app.command("check", cls=command_line.Command)
def check_weights(
    file: options.CheckpointFile,
    quiet: options.Quiet = False,  # noqa: ARG001 - it prints data only
    verbose: options.Verbose = False,  # noqa: ARG001 - for `__main__`
) -> None:
    """Show what a checkpoint contains and which network it fits; exit with 2 if it fits none."""
    from ..common.errors import WeightsError
    from ..models import registry, weights
    from ..models.card import Card
    from ..models.request import ModelRequest

    path = Path(file)
    found = weights.WeightsFile(path, weights.sha256_of(path))
    networks = weights.networks_in(found)
    write_line(f"{'sha256':20}{found.sha256}", sys.stdout)
    if (card := ModelRequest(weights_file=file).card_path()) is not None:
        write_line(f"{'card':20}{card}: {', '.join(Card.read(card).keys)}", sys.stdout)
    for network in networks:
        write_line(f"{'network':20}{network.described()}", sys.stdout)
    fits = False
    for name, backbone in registry.BACKBONES.items():
        try:
            loaded = weights.load_one_of(backbone, networks, path)
        except WeightsError as error:
            write_line(f"{name:20}{str(error).removeprefix(f'{path}: ')}", sys.stdout)
            continue
        if card is not None:
            # It, too, may not fit; so it is refused as by a run.
            ModelRequest(name, file).resolve().load(found)
        fits, origin = True, loaded.origin.described()
        classes = counted(len(loaded.class_names), "class", "classes")
        write_line(f"{name:20}fits: {classes}{f'; {origin}' if origin else ''}", sys.stdout)
    if not fits:
        raise WeightsError(f"{path}: does not fit {alternatives(registry.BACKBONES)}")


@weights_app.command("verify", cls=command_line.Command)
def verify_weights(
    quiet: options.Quiet = False,  # noqa: ARG001 - it prints data only
    verbose: options.Verbose = False,  # noqa: ARG001 - for `__main__`
) -> None:
    """Verify the checksum of every weights file on this machine; exit with 2 if one is damaged."""
    from ..common.errors import WeightsError
    from ..models import registry, weights

    damaged = None
    for name, backbone in registry.BACKBONES.items():
        source = backbone.weights
        path = source.path if isinstance(source, registry.BundledWeights) else weights.cached(source)
        try:
            state = f"ok       {weights.verify(path, backbone.sha256).path}" if path else "not downloaded"
        except WeightsError as error:
            state, damaged = f"damaged  {path}", error
        write_line(f"{name:20}{state}", sys.stdout)
    if damaged:
        raise damaged

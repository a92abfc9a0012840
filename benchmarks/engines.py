"""`fcn`, ONNX Runtime, OpenVINO and torch.compile on one CPU, timed in turn in one process.

This is ``fcn bench`` with more contenders, from the extra ``bench``. All use the same weights, precision and
number of threads; in bfloat16 without ONNX Runtime, which has no such convolution on a CPU, and with `fcn` in
float32 for comparison. ``--own`` times our bfloat16 kernels without AMX; with
ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 (OpenVINO honours it too), that shows a CPU without AMX.

Only the first contender computes the auxiliary head, and none spins between operators. The same code turns
their logits into label maps. Each configuration appends one line of JSON to the results file. With
``--against`` another checkout takes the place of all contenders.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import against, direct_limit, material
from benchmarks.against import Figure
from fcn_cli.cpu.kernels import amx
from fcn_cli.cpu.network import CpuNetwork
from fcn_cli.evaluation import bench
from fcn_cli.evaluation.bench import Contender
from fcn_cli.inference.engine import Engine
from fcn_cli.inference.execution import ExecutionConfig, resolve_execution
from fcn_cli.inference.labels import Upsampler
from fcn_cli.inference.options import InferenceOptions
from fcn_cli.models import registry


def main() -> None:
    """Print a line per contender and configuration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--backbone", nargs="+", default=["resnet50", "resnet101"], choices=registry.BACKBONES
    )
    parser.add_argument("--size", nargs="+", default=["520x520", "693x520"], metavar="WxH")
    parser.add_argument("--batch-size", nargs="+", type=int, default=[1, 4, 8])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--own", action="store_true", help="our kernels without AMX")
    parser.add_argument("--without", nargs="+", default=[], choices=list(MAKERS))
    parser.add_argument("--results", type=Path, default=Path("bench_engines.jsonl"))
    against.add_options(parser)
    against.main(parser, figures, show)


_INNER_ROUNDS = 3


def figures(options: argparse.Namespace, _folder: Path) -> Iterator[Figure]:
    """Measure `fcn` once in each configuration."""
    for backbone, width, height, execution in configurations(options):
        torch.set_num_threads(execution.threads)
        engine = Engine(bench.random_network(backbone), execution)
        shape = (execution.batch_size, height, width, 3)
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        with torch.inference_mode():
            seconds = bench.in_turn({"fcn": bench.engine_run(engine, pixels)}, _INNER_ROUNDS)["fcn"]
        name = f"{backbone} {width}x{height}, batch {execution.batch_size}, {execution.precision}"
        yield Figure(name, execution.batch_size / statistics.median(seconds), "images/s")


def show(options: argparse.Namespace, _folder: Path) -> None:
    """Measure all contenders in turn, and print and keep the results."""
    makers = {name: maker for name, maker in MAKERS.items() if name not in options.without}
    if options.precision == "bf16":
        makers.pop("onnxruntime", None)
    else:
        makers.pop("float32", None)

    def further(model: nn.Module, batch: Tensor) -> list[Contender]:
        return [maker(model, batch, options.precision) for maker in makers.values()]

    for backbone, width, height, execution in configurations(options):
        product = direct_limit.MatrixProduct(execution)
        measured = bench.measure(
            backbone, width, height, execution, options.rounds, further, material.randomise, product.measure
        )
        gflop = direct_limit.gflop(bench.random_network(backbone).model, width, height)
        report(measured, gflop, product.best_rate, options.results)


def configurations(options: argparse.Namespace) -> Iterator[tuple[str, int, int, ExecutionConfig]]:
    """Yield each backbone, width, height, and how to run it."""
    if options.own:
        amx.available = lambda: False
    for backbone in options.backbone:
        for size in options.size:
            width, height = (int(side) for side in size.split("x"))
            for batch_size in options.batch_size:
                chosen = InferenceOptions("cpu", options.precision, batch_size=batch_size)
                execution = resolve_execution(chosen)
                if options.own:
                    execution = replace(execution, kernels="fast")
                yield backbone, width, height, execution


def report(measured: bench.Measured, gflop: float, rate: float, results: Path) -> None:
    """Print the results of one configuration, and append them to the file.

    `gflop` are the operations of one image, `rate` is that of the best matrix product, in 10^9 a second.
    """
    with results.open("a") as file:
        content = {**measured.as_json(), "gflop_per_image": gflop, "gemm_gflop_per_second": rate}
        file.write(json.dumps(content) + "\n")
    print(
        f"{measured.backbone} {measured.width}x{measured.height} batch {measured.batch_size}: "
        f"{gflop:.0f} GFLOP, matrix products at {rate:.0f} GFLOP/s",
        flush=True,
    )
    for name in measured.seconds:
        print(
            f"  {name:32} {measured.precision(name)} {1 / measured.median(name):.3f} images/s, "
            f"{measured.median(bench.HUB) / measured.median(name):.2f} of torchvision, "
            f"{gflop / rate / measured.median(name):.2f} of the direct limit",
            flush=True,
        )


def contender(
    name: str, logits: Callable[[], Tensor], batch: Tensor, precision: str | None = None
) -> Contender:
    """Return a contender that computes logits and label maps."""
    height, width = batch.shape[2:]

    def run() -> Sequence[Tensor]:
        return [Upsampler().to_size(image, height, width).labels for image in logits()]

    return Contender(name, run, precision)


def onnx_file(model: nn.Module, batch: Tensor, folder: str) -> str:
    """Export a model for one input shape, and return the file's path."""
    path = f"{folder}/model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (batch,), path, input_names=["batch"], dynamo=False)
    return path


def onnx_runtime(model: nn.Module, batch: Tensor, _precision: str) -> Contender:
    """Return ONNX Runtime with all its graph optimisations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with tempfile.TemporaryDirectory() as folder:
        session = onnxruntime.InferenceSession(
            onnx_file(model, batch, folder), options, providers=["CPUExecutionProvider"]
        )
    array = batch.numpy()
    return contender(
        f"ONNX Runtime {onnxruntime.__version__}",
        lambda: torch.from_numpy(session.run(None, {"batch": array})[0]),
        batch,
    )


def openvino(model: nn.Module, batch: Tensor, precision: str) -> Contender:
    """Return OpenVINO, one stream."""
    import openvino as ov

    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
    }
    with tempfile.TemporaryDirectory() as folder:
        compiled = ov.Core().compile_model(onnx_file(model, batch, folder), "CPU", settings)
    array = batch.numpy()
    version = ov.__version__.split("-")[0]
    return contender(f"OpenVINO {version}", lambda: torch.from_numpy(compiled(array)[0]), batch)


def compiled(model: nn.Module, batch: Tensor, precision: str) -> Contender:
    """Return torch.compile with frozen weights in channels-last order."""
    import torch._inductor.config as inductor

    inductor.freezing = True
    channels_last_model = copy.deepcopy(model).to(memory_format=torch.channels_last)
    run = torch.compile(channels_last_model)
    channels_last = batch.contiguous(memory_format=torch.channels_last)

    def logits() -> Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            result: Tensor = run(channels_last)
        return result.float()

    return contender("torch.compile", logits, batch)


def ours_in_float32(model: nn.Module, batch: Tensor, _precision: str) -> Contender:
    """Return our kernels in float32."""
    network = CpuNetwork(model)
    return contender("fcn, float32", lambda: network(batch), batch, "fp32")


MAKERS: dict[str, Callable[[nn.Module, Tensor, str], Contender]] = {
    "onnxruntime": onnx_runtime,
    "openvino": openvino,
    "compile": compiled,
    "float32": ours_in_float32,
}

if __name__ == "__main__":
    main()

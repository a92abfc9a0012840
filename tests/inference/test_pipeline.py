"""The pipeline: order, failures, endings, bounds, on a CPU and on a device that computes later."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fcn_cli.common.class_names import VOC_CLASSES
from fcn_cli.common.errors import DeviceLost, Failure, FailureKind, FcnError
from fcn_cli.common.label_map import Segmentation
from fcn_cli.inference import engine, pipeline
from fcn_cli.inference.engine import Batch, Engine
from fcn_cli.inference.execution import ExecutionConfig
from fcn_cli.inference.labels import LABELS_ONLY, find_label_kernel
from fcn_cli.inference.options import ViewOptions
from fcn_cli.inference.pipeline import Prediction, run_batches
from fcn_cli.inference.transfers import CudaTransfers
from fcn_cli.models.card import IMAGENET
from fcn_cli.models.registry import BACKBONES
from fcn_cli.models.weights import LoadedModel

from ..conftest import preview_network, wait_until

# ---- a GPU that is none: its streams compute at once, and note what was asked of them


class FakeGpu:
    """Stands for ``torch.cuda`` in what `CudaTransfers` uses of it; `log` has what happened, by stream."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.hold: threading.Event | None = None
        self.lost = False
        self.streams = iter(("upload", "download"))
        self.current = threading.local()

    def make_stream(self, _: torch.device) -> FakeStream:
        return FakeStream(self, next(self.streams))

    @contextlib.contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        before, self.current.stream = self.stream_of_thread(), stream
        yield
        self.current.stream = before

    def stream_of_thread(self, _: object = None) -> FakeStream:
        return getattr(self.current, "stream", None) or FakeStream(self, "compute")

    def event(self, *, blocking: bool) -> FakeEvent:
        assert blocking, "who waits must not poll"
        return FakeEvent(self)


class FakeStream:
    def __init__(self, gpu: FakeGpu, name: str) -> None:
        self.gpu, self.name = gpu, name

    def wait_event(self, event: FakeEvent) -> None:
        self.gpu.log.append((self.name, f"wait for {event.stream}"))


class FakeEvent:
    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu, self.stream = gpu, ""

    def record(self, stream: FakeStream) -> None:
        self.stream = stream.name
        self.gpu.log.append((stream.name, "record"))

    def synchronize(self) -> None:
        if self.stream == "download" and self.gpu.hold is not None:
            assert self.gpu.hold.wait(20)
        if self.gpu.lost:
            raise torch.AcceleratorError("CUDA error: unspecified launch failure")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """Have the CPU taken for a GPU by everything but the choice of the batch size."""
    fake = FakeGpu()
    monkeypatch.setattr(torch.cuda, "Stream", fake.make_stream)
    monkeypatch.setattr(torch.cuda, "Event", fake.event)
    monkeypatch.setattr(torch.cuda, "stream", fake.stream)
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", fake.stream_of_thread)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None)
    monkeypatch.setattr(
        CudaTransfers, "make_buffer", lambda _self, size: torch.empty(size, dtype=torch.uint8)
    )
    monkeypatch.setattr(engine, "open_transfers", CudaTransfers)
    return fake


# ---- engines


class Brightness(nn.Module):
    """Two classes, dark and bright; a hook is told of every forward pass."""

    def __init__(self, watch: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.watch = watch

    def forward(self, batch: Tensor) -> Tensor:
        self.watch(batch)
        return torch.stack([-batch[:, 0], batch[:, 0]], 1)


def engine_of(
    watch: Callable[[Tensor], None] = lambda _: None, views: ViewOptions | None = None, **plan: Any
) -> Engine:
    model = nn.Sequential(OrderedDict(backbone=Brightness(watch), classifier=nn.Identity()))
    network = LoadedModel(BACKBONES["efficientnet_lite0"], model.eval(), VOC_CLASSES)
    how = {"precision": "fp32", "kernels": "torch", "batch_size": 8, "threads": 1, **plan}
    execution = ExecutionConfig(torch.device("cpu"), **how)
    return Engine(network, execution, views=views or ViewOptions())


def image(seed: int, height: int = 6, width: int = 5) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def bright(pixels: Any) -> Any:
    mean, std = IMAGENET.mean[0], IMAGENET.std[0]
    return (torch.from_numpy(pixels[..., 0]).float().div(255).sub(mean).div(std) > 0).numpy().astype(np.uint8)


def batch(key: int, count: int = 2, height: int = 6) -> Batch[int]:
    pixels = [image(100 * key + index, height) for index in range(count)]
    return Batch([key] * count, pixels, [(one.shape[1], one.shape[0]) for one in pixels])


def failed(key: int) -> Prediction[int]:
    return Prediction(key, Failure(FailureKind.BROKEN, "cannot be decoded"), 0.5)


Done = list[Prediction[int]]


def generated(items: Sequence[Any]) -> Generator[Any]:
    yield from items


def labels_of(done: Done) -> list[Any]:
    return [one.result.labels if isinstance(one.result, Segmentation) else one.result for one in done]


def keys(batches: Iterable[Done]) -> list[int]:
    return [done[0].image for done in batches if done]


def check(done: Done, expected: Batch[int]) -> None:
    assert [one.image for one in done] == expected.images
    for labels, pixels in zip(labels_of(done), expected.pixels, strict=True):
        assert np.array_equal(labels, bright(pixels))


@pytest.fixture(params=["cpu", "gpu"])
def on_both(request: pytest.FixtureRequest) -> FakeGpu | None:
    return request.getfixturevalue("gpu") if request.param == "gpu" else None


# ---- order and results


def test_results_come_in_order_and_belong_to_their_batches(on_both: FakeGpu | None) -> None:
    """Batches of other shapes and sizes, a failure that passes, moments in which nothing is ready."""
    batches: list[Batch[int] | Prediction[int]]
    batches = [batch(1), batch(2, 3, 9), failed(3), batch(4, 1), batch(5, 2, 30), batch(6), batch(7, 8, 12)]
    given = [batches[0], None, *batches[1:4], None, *batches[4:]]
    got = list(run_batches(engine_of(), generated(given)))
    assert len(got) == 7
    for done, expected in zip(got, batches, strict=True):
        if isinstance(expected, Prediction):
            assert done == [expected]
        else:
            check(done, expected)
        assert all(one.seconds >= 0 for one in done)


def test_nothing_ready_gives_control_back() -> None:
    go = threading.Event()

    def slow() -> Generator[Batch[int] | None]:
        yield batch(1)
        assert go.wait(20)
        yield batch(2)

    waited: list[int | None] = []
    for done in run_batches(engine_of(), slow()):
        waited.append(done[0].image if done else None)
        if not done:
            go.set()
    assert waited[0] == 1
    assert waited[-1] == 2
    assert None in waited


def test_masks_are_those_of_the_engine_by_itself(on_both: FakeGpu | None) -> None:
    network = preview_network()
    execution = ExecutionConfig(torch.device("cpu"), "fp32", "torch", 4, 1)
    ours = Engine(network, execution)
    pixels = [image(index, 64, 80) for index in range(3)]
    sizes = [(80, 64), (160, 128), (33, 70)]
    alone = ours.predict(pixels, sizes)
    (done,) = run_batches(ours, generated([Batch(range(3), pixels, sizes)]))
    others = [one.result for one in done]
    for one, other, (width, height) in zip(alone, others, sizes, strict=True):
        assert isinstance(one, Segmentation)
        assert isinstance(other, Segmentation)
        assert one.labels.shape == (height, width)
        assert np.array_equal(one.labels, other.labels)


# ---- stages beside each other


def test_a_batch_is_stacked_while_the_one_before_is_computed() -> None:
    taken: list[int] = []

    def source() -> Generator[Batch[int] | None]:
        for key in range(6):
            taken.append(key)
            yield batch(key)

    ahead: list[int] = []

    def watch(_: Tensor) -> None:
        done = len(ahead)
        # The next batch comes while this one is computed, and no third one.
        wait_until(lambda: len(taken) >= min(done + 2, 6))
        ahead.append(len(taken) - done)

    assert keys(run_batches(engine_of(watch), source())) == list(range(6))
    assert ahead == [2, 2, 2, 2, 2, 1]


def test_on_a_gpu_the_next_batch_is_launched_before_the_results_of_the_last_are_waited_for(
    gpu: FakeGpu,
) -> None:
    launched: list[int] = []
    gpu.hold = threading.Event()

    def watch(_: Tensor) -> None:
        launched.append(1)
        if len(launched) == 2:
            gpu.hold.set()  # type: ignore[union-attr]

    assert keys(run_batches(engine_of(watch), generated([batch(key) for key in range(4)]))) == [0, 1, 2, 3]
    # Every batch waits for its upload, every download for its batch.
    assert gpu.log.count(("compute", "wait for upload")) == 4
    assert gpu.log.count(("download", "wait for compute")) == 4


def test_two_buffers_are_used_in_turn(monkeypatch: pytest.MonkeyPatch, on_both: FakeGpu | None) -> None:
    made: list[int] = []

    def counted(*arguments: Any) -> Tensor:
        made.append(arguments[-1])
        return torch.empty(arguments[-1], dtype=torch.uint8)

    addresses: list[int] = []
    stack = pipeline._Buffer.stack

    def watched(self: pipeline._Buffer, pixels: Any) -> Any:
        stacked = stack(self, pixels)
        assert self._memory is not None
        addresses.append(self._memory.data_ptr())
        return stacked

    monkeypatch.setattr(pipeline._Buffer, "stack", watched)
    monkeypatch.setattr(pipeline, "_ordinary_buffer", counted)
    list(run_batches(engine_of(), generated([batch(key) for key in range(7)])))
    assert len(set(addresses)) == 2
    assert addresses[::2] == [addresses[0]] * 4
    assert made == ([] if on_both else [2 * 6 * 5 * 3] * 2)


def test_batches_ahead_are_bounded_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "MAX_BYTES_AHEAD", 100)
    taken: list[int] = []

    def source() -> Generator[Batch[int] | None]:
        for key in range(4):
            taken.append(key)
            yield batch(key)

    def watch(_: Tensor) -> None:
        # Each of these has more bytes: none is taken while another is computed.
        assert len(taken) == len(seen) + 1
        seen.append(1)

    seen: list[int] = []
    assert len(list(run_batches(engine_of(watch), source()))) == 4


# ---- failures


def test_a_batch_that_does_not_fit_goes_in_parts(on_both: FakeGpu | None) -> None:
    sizes: list[int] = []

    def watch(images: Tensor) -> None:
        sizes.append(len(images))
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    batches = [batch(1, 8), batch(2, 2)]
    for done, expected in zip(run_batches(engine_of(watch), generated(batches)), batches, strict=True):
        check(done, expected)
    assert sizes == [8, 4, 2, 2, 2, 2, 2]


def test_an_image_that_does_not_fit_alone_fails_alone(on_both: FakeGpu | None) -> None:
    def watch(images: Tensor) -> None:
        if images.shape[2] > 8:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    batches = [batch(1), batch(2, 2, 9), batch(3)]
    first, second, third = run_batches(engine_of(watch), generated(batches))
    check(first, batches[0])
    check(third, batches[2])
    assert [one.kind for one in labels_of(second)] == [FailureKind.OUT_OF_MEMORY] * 2


def test_pixels_that_cannot_be_stacked_are_given_to_the_engine_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is no memory for a batch: the engine takes one image after the other."""

    def refused(*_: object) -> Tensor:
        raise MemoryError

    ours = engine_of()
    monkeypatch.setattr(pipeline, "_ordinary_buffer", refused)
    (done,) = run_batches(ours, generated([batch(1)]))
    check(done, batch(1))


def test_what_is_not_finite_is_done_again_in_the_fallback(on_both: FakeGpu | None) -> None:
    def watch(images: Tensor) -> None:
        seen.append(len(images))
        if len(images) > 1:
            images[1, 0] = float("nan")

    seen: list[int] = []
    ours = engine_of(watch, precision="fp16", fallback="fp32")
    (done, after) = run_batches(ours, generated([batch(1, 3), batch(2, 1)]))
    results = [one.result for one in done]
    assert [one.precision for one in results if isinstance(one, Segmentation)] == ["fp16", "fp32", "fp16"]
    check(done, batch(1, 3))
    check(after, batch(2, 1))
    assert sorted(seen) == [1, 1, 3]


@pytest.mark.parametrize("at", ["launch", "results"])
def test_a_lost_device_keeps_what_was_computed_before(at: str, on_both: FakeGpu | None) -> None:
    if at == "results" and on_both is None:
        pytest.skip("a CPU has its results at once")
    launched: list[int] = []

    def watch(_: Tensor) -> None:
        launched.append(1)
        if len(launched) == 4:
            if at == "launch":
                raise torch.AcceleratorError("CUDA error: unspecified launch failure")
            assert on_both is not None
            on_both.lost = True

    got: list[Done] = []
    with pytest.raises(DeviceLost, match="unspecified launch failure"):
        got.extend(one for one in run_batches(engine_of(watch), generated([*map(batch, range(9))])) if one)
    least = 3 if at == "launch" else 2
    assert keys(got) == list(range(len(got)))
    assert len(got) >= least
    for key, done in enumerate(got):
        check(done, batch(key))


def test_what_ends_the_batches_is_raised_after_the_results_before_it(on_both: FakeGpu | None) -> None:
    def broken() -> Generator[Batch[int] | None]:
        yield batch(1)
        yield batch(2)
        raise FcnError("the decoding workers die before they decode anything")

    got: list[Done] = []
    with pytest.raises(FcnError, match="decoding workers"):
        got.extend(run_batches(engine_of(), broken()))
    assert keys(got) == [1, 2]


def test_what_closing_the_batches_raises_does_not_hide_what_ended_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that waits for an end that nobody says waits for ever."""

    def source() -> Generator[Batch[int] | None]:
        try:
            yield batch(1)
        finally:
            raise OSError("while closing")

    def refused(*_: object) -> Tensor:
        raise FcnError("while stacking")

    monkeypatch.setattr(pipeline, "_ordinary_buffer", refused)
    with pytest.raises(FcnError, match="while stacking"):
        list(run_batches(engine_of(), source()))


# ---- endings


def test_closing_ends_the_threads_and_closes_the_batches(on_both: FakeGpu | None) -> None:
    closed = threading.Event()
    taken: list[int] = []

    def source() -> Generator[Batch[int] | None]:
        try:
            for key in range(1000):
                taken.append(key)
                yield batch(key)
        finally:
            closed.set()

    before = set(threading.enumerate())
    results = run_batches(engine_of(), source())
    check(next(results), batch(0))
    results.close()
    assert closed.is_set()
    assert len(taken) < 8
    assert {thread.name for thread in set(threading.enumerate()) - before} == set()


def test_closing_does_not_wait_for_batches_that_do_not_come() -> None:
    ended = threading.Event()

    def source() -> Generator[Batch[int] | None]:
        yield batch(0)
        while not ended.wait(0.01):
            yield None

    results = run_batches(engine_of(), source())
    check(next(results), batch(0))
    results.close()
    ended.set()


def test_images_in_tiles_pass_in_their_place(on_both: FakeGpu | None) -> None:
    execution = ExecutionConfig(torch.device("cpu"), "fp32", "torch", 4, 1)
    ours = Engine(preview_network(), execution, views=ViewOptions(tile=128, overlap=0))
    batches = [batch(1, 2, 20), Batch([2], [image(9, 200, 150)], [(150, 200)]), batch(3, 1, 20)]
    got = list(run_batches(ours, generated(batches)))
    for done, expected in zip(got, batches, strict=True):
        assert [one.image for one in done] == expected.images
        alone = ours.predict(expected.pixels, expected.sizes)
        for labels, one in zip(labels_of(done), alone, strict=True):
            assert isinstance(one, Segmentation)
            assert np.array_equal(labels, one.labels)


# ---- the device


def test_downloads_come_back_with_their_shapes_and_types(gpu: FakeGpu) -> None:
    ours = CudaTransfers(torch.device("cpu"))
    tensors = [
        torch.tensor([True, False]),
        torch.arange(12, dtype=torch.uint8).view(3, 4),
        torch.zeros(0, 3, dtype=torch.uint8),
    ]
    got = ours.download(tensors)()
    assert [one.dtype for one in got] == [np.bool_, np.uint8, np.uint8]
    for array, tensor in zip(got, tensors, strict=True):
        assert np.array_equal(array, tensor.numpy())
        assert array.base is None or array.base.base is None


def test_host_memory_that_cannot_be_pinned_is_ordinary_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.empty
    text = "CUDA error: out of memory"

    def empty(*arguments: Any, pin_memory: bool = False, **options: Any) -> Tensor:
        if pin_memory:
            raise torch.AcceleratorError(text)
        return real(*arguments, **options)

    monkeypatch.setattr(torch.cuda, "Stream", lambda _: None)
    monkeypatch.setattr(torch, "empty", empty)
    ours = CudaTransfers(torch.device("cuda"))
    assert len(ours.make_buffer(10)) == 10
    text = "CUDA error: unspecified launch failure"
    with pytest.raises(torch.AcceleratorError, match="launch failure"):
        ours.make_buffer(10)


def test_a_label_kernel_that_cannot_be_compiled_is_none() -> None:
    """Triton cannot run on a CPU; what it raises is a reason to go chunk by chunk."""
    assert find_label_kernel(torch.device("cpu"), LABELS_ONLY) is None


def test_failures_and_results_keep_their_places(on_both: FakeGpu | None) -> None:
    failing = {1, 4}

    def watch(images: Tensor) -> None:
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        seen.append(1)
        if len(seen) - 1 in failing:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    seen: list[int] = []
    (done,) = run_batches(engine_of(watch), generated([batch(1, 6)]))
    assert [isinstance(one.result, Failure) for one in done] == [index in failing for index in range(6)]

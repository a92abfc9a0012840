"""A network on its device: RGB pixels to label maps, in batches as large as memory allows."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..common import resources
from ..common.errors import Failure, FailureKind
from ..common.label_map import Segmentation
from ..inputs.shared_pixels import Pixels
from ..models.weights import LoadedModel
from . import device_errors
from .cuda_network import CudaNetwork, ieee_float32
from .execution import ONEDNN_PRIMITIVES, ExecutionConfig
from .labels import LABELS_ONLY, PredictionOptions, Upsampler, find_label_kernel, in_half
from .options import ViewOptions
from .transfers import Upload, open_transfers
from .views import Views

if TYPE_CHECKING:
    from ..cpu.network import CpuNetwork

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""The type that autocast computes in, by the name of the precision; float32 uses no autocast."""

WHOLE_IMAGE = ViewOptions()
"""The network sees each image once, as a whole."""

_LARGEST_LOGIT = torch.finfo(torch.float32).max / 4
"""Interpolation computes differences of logits, which must not overflow either."""

_GFLOP_OF_ONE_THREAD = 0.3
"""One thread computes an image that takes less work: handing it out costs more than it saves."""

_RESERVED_ON_CUDA = 1 << 30
"""Bytes that label maps and the libraries need on a GPU at any batch size."""

K = TypeVar("K")
T = TypeVar("T")

Size = tuple[int, int]
Shape = tuple[int, ...]

Outcome: TypeAlias = Segmentation | Failure | None
"""What came of an image; None where its logits are not finite."""

Collect = Callable[[], list[Outcome]]
"""Waits for what came of some images."""


@dataclass(frozen=True)
class Batch(Generic[K]):
    """Images of one shape, on their way through the network.

    `images` says what they are; they come back with the results. `pixels` are RGB, uint8, shape (h, w, 3);
    `sizes` the (width, height) of the label maps; `smaller` has each image at smaller sizes too, whose
    probabilities are averaged, or is empty.
    """

    images: Sequence[K]
    pixels: Sequence[Pixels]
    sizes: Sequence[Size]
    smaller: Sequence[Sequence[Pixels]] = ()

    @property
    def nbytes(self) -> int:
        """The size of all pixels in bytes."""
        return sum(one.nbytes for one in self.pixels) + sum(one.nbytes for few in self.smaller for one in few)

    def image(self, index: int) -> Batch[K]:
        """Return a batch of one of the images."""
        one = slice(index, index + 1)
        return Batch(self.images[one], self.pixels[one], self.sizes[one], self.smaller[one])


class Launched(NamedTuple, Generic[K]):
    """A batch that the device has begun to segment, part by part."""

    batch: Batch[K]
    parts: Sequence[Collect]


class Engine:
    """A network on its device, ready to predict.

    Threads may share it. Their calls run one after the other: one forward pass keeps the whole device busy,
    and buffers for several at once would only take memory.

    Creating one sets the process's number of torch threads and turns off cuDNN's benchmark mode. The first
    one also limits oneDNN's cache, unless ONEDNN_PRIMITIVE_CACHE_CAPACITY is set. On CUDA, float32 is
    computed without TF32; the process's settings for that are as before after each batch.

    Parameters
    ----------
    network
        The network with its weights.
    execution
        The device, precision, kernels, batch size and number of threads.
    options
        What to predict beside the classes.
    views
        The tiles in which the network sees an image, and whether its mirror image counts too.

    Raises
    ------
    DeviceLost
        The device fails, or has not enough memory for the network.
    """

    def __init__(
        self,
        network: LoadedModel,
        execution: ExecutionConfig,
        options: PredictionOptions = LABELS_ONLY,
        views: ViewOptions = WHOLE_IMAGE,
    ) -> None:
        torch.set_num_threads(execution.threads)
        # oneDNN reads this at its first computation.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(ONEDNN_PRIMITIVES))
        # Images have many shapes: searching an algorithm for each shape costs more than it saves.
        torch.backends.cudnn.benchmark = False
        self.execution = execution
        self.network = network
        self.device = execution.device
        self.views = Views(views, network.backbone.stride)
        self._limits = BatchLimits(execution, network.backbone.bytes_per_pixel)
        self._lock = threading.Lock()
        self._model = network.model
        self._forwards: dict[str, Callable[[Tensor], Tensor]] = {}
        self._cpu_network: CpuNetwork | None = None
        label_kernel = None
        with device_errors.detect_load_failure(self.device):
            self.transfers = open_transfers(self.device)
            self._mean = torch.tensor(network.normalisation.mean, device=self.device).view(3, 1, 1)
            self._std = torch.tensor(network.normalisation.std, device=self.device).view(3, 1, 1)
            if self.transfers is not None:
                with torch.cuda.device(self.device), torch.inference_mode():
                    self._forwards[execution.precision] = self._cuda_forward(execution.precision)
                    label_kernel = find_label_kernel(self.device, options)
            else:
                self._model = self._model.to(self.device)
                self._cpu_network = _cpu_network(self._model, execution)
        if self._cpu_network is not None:
            self._forwards[execution.precision] = self._cpu_network
        self._upsampler = Upsampler(options, compiled=execution.kernels == "fast", kernel=label_kernel)

    def sees_whole(self, batch: Batch[K]) -> bool:
        """Say whether the network sees the batch's images once, as a whole."""
        return self.views.sees_whole(batch.pixels[0], batch.smaller[0] if batch.smaller else ())

    def predict(
        self, pixels: Sequence[Pixels], sizes: Sequence[Size], smaller: Sequence[Sequence[Pixels]] = ()
    ) -> list[Segmentation | Failure]:
        """Segment images of one shape; see `Batch`, `launch` and `collect`."""
        return self.collect(self.launch(Batch(range(len(pixels)), pixels, sizes, smaller)))

    def launch(self, batch: Batch[K], stacked: Tensor | Upload | None = None) -> Launched[K]:
        """Begin to segment a batch; on a CPU, and in several views, it is done when this returns.

        As many images go together as the free memory allows. A batch that still runs out of memory is halved,
        down to single images; an image that does not fit alone fails, and only that one.

        Parameters
        ----------
        batch
            The images.
        stacked
            Their pixels as one tensor, uint8, shape (images, h, w, 3), on its way to the device, for images
            that are seen whole; or None.

        Raises
        ------
        DeviceLost
            The device cannot compute any more.
        """
        with self._computing():
            return Launched(batch, self._begin(batch, self.execution.precision, stacked))

    def collect(self, launched: Launched[K]) -> list[Segmentation | Failure]:
        """Wait for the results of a batch, in any thread.

        An image whose logits are not finite is done again in the fallback, if there is one; then it fails.

        Raises
        ------
        DeviceLost
            The device cannot compute any more.
        """
        batch, fallback = launched.batch, self.execution.fallback
        outcomes = self._wait(launched.parts)
        for index, outcome in enumerate(outcomes):
            if outcome is None and fallback is not None:
                with self._computing():
                    again = self._begin(batch.image(index), fallback)
                (outcomes[index],) = self._wait(again)
        failure = _not_finite(fallback or self.execution.precision)
        return [failure if outcome is None else outcome for outcome in outcomes]

    def kernels(self) -> dict[str, int]:
        """Return the number of layers of the last image by the kernel that computed them.

        Empty for PyTorch's kernels.
        """
        with self._lock:
            return self._cpu_network.kernels() if self._cpu_network is not None else {}

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        """Compute on the device, one thread at a time; the error of a lost device becomes DeviceLost."""
        with contextlib.ExitStack() as contexts:
            contexts.enter_context(self._lock)
            contexts.enter_context(device_errors.detect_lost_device(self.device))
            if self.transfers is not None:
                contexts.enter_context(torch.cuda.device(self.device))
                contexts.enter_context(ieee_float32())
            contexts.enter_context(torch.inference_mode())
            yield

    def _wait(self, parts: Sequence[Collect]) -> list[Outcome]:
        with device_errors.detect_lost_device(self.device):
            return [outcome for collect in parts for outcome in collect()]

    def _begin(
        self, batch: Batch[K], precision: str, stacked: Tensor | Upload | None = None
    ) -> Sequence[Collect]:
        """Begin to segment a batch in one precision."""
        if not self.sees_whole(batch):
            outcomes = [self._from_views(batch.image(index), precision) for index in range(len(batch.pixels))]
            return [lambda: outcomes]
        on_device = stacked.receive() if isinstance(stacked, Upload) else stacked

        def begin(part: slice) -> Collect:
            images = self._stack(batch.pixels[part]) if on_device is None else on_device[part]
            return self._begin_whole(images, batch.sizes[part], precision)

        def failed(failure: Failure) -> Collect:
            return lambda: [failure]

        parts = self._in_parts(batch.pixels[0].shape, len(batch.pixels), begin)
        return [failed(part) if isinstance(part, Failure) else part for part in parts]

    def _begin_whole(self, images: Tensor, sizes: Sequence[Size], precision: str) -> Collect:
        """Begin to segment images on the device: uint8, shape (images, h, w, 3)."""
        logits = self._forward(images, precision)
        # On the device, to wait for it once. The maximum with a NaN is NaN, which compares as False.
        finite = logits.abs().amax((1, 2, 3)) <= _LARGEST_LOGIT
        maps = [
            self._upsampler.to_size(image, height, width)
            for image, (width, height) in zip(logits, sizes, strict=True)
        ]
        options = self._upsampler.options
        kept = in_half(logits) if options.logits else None
        wanted = [finite]
        for index, pair in enumerate(maps):
            wanted += [tensor for tensor in pair if tensor is not None]
            wanted += [kept[index]] if kept is not None else []
        arrays = self._download(wanted)

        def collect() -> list[Outcome]:
            are_finite, *found = arrays()
            step = 1 + options.confidence + options.logits
            return [
                _segmentation(found[step * index : step * (index + 1)], options, precision)
                if is_finite
                else None
                for index, is_finite in enumerate(are_finite.tolist())
            ]

        return collect

    def _from_views(self, batch: Batch[K], precision: str) -> Outcome:
        """Segment an image that the network sees in several views."""
        sizes = [batch.pixels[0], *(batch.smaller[0] if batch.smaller else ())]
        forward, options = partial(self._tile_logits, precision), self._upsampler.options
        kept: list[Tensor] | None = [] if options.logits else None
        try:
            maps = self.views.upsample(
                sizes, batch.sizes[0], forward, self.execution.batch_size, self._upsampler, self.device, kept
            )
        except _NoLogits as error:
            return error.outcome
        wanted = [tensor for tensor in maps if tensor is not None]
        wanted += [torch.cat(kept, 1)] if kept is not None else []
        return _segmentation(self._download(wanted)(), options, precision)

    def _tile_logits(self, precision: str, tiles: Sequence[Pixels]) -> Tensor:
        """Return the logits of tiles of one shape, all of them finite; raises _NoLogits."""

        def run(part: slice) -> Tensor:
            return self._forward(self._stack(tiles[part]), precision)

        parts: list[Tensor] = []
        for logits in self._in_parts(tiles[0].shape, len(tiles), run):
            if isinstance(logits, Failure):
                raise _NoLogits(logits)
            if not bool(logits.abs().amax() <= _LARGEST_LOGIT):
                raise _NoLogits(None)
            parts.append(logits)
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _in_parts(self, shape: Shape, count: int, run: Callable[[slice], T]) -> Iterator[T | Failure]:
        """Run for all inputs of a shape, as many at a time as fit into memory; yield what each time returns.

        A failure stands for an input that does not fit alone.
        """
        done = 0
        while done < count:
            wanted = min(count - done, self._limits.images(shape))
            result = self._unless_out_of_memory(partial(run, slice(done, done + wanted))) if wanted else None
            if result is None and wanted > 1:
                self._limits.did_not_fit(shape, wanted)
                continue
            yield _out_of_memory(shape) if result is None else result
            done += max(1, wanted)

    def _unless_out_of_memory(self, run: Callable[[], T]) -> T | None:
        """Return the result of a computation, or None when memory does not suffice for it."""
        try:
            return run()
        except (RuntimeError, MemoryError) as error:
            if not device_errors.is_out_of_memory(error):
                raise
        # Outside the handler: inside it the exception keeps the failed pass's tensors alive.
        if self.transfers is not None:
            torch.cuda.empty_cache()
        return None

    def _stack(self, pixels: Sequence[Pixels]) -> Tensor:
        return torch.from_numpy(np.stack(pixels)).to(self.device)

    def _download(self, tensors: Sequence[Tensor]) -> Callable[[], list[NDArray[Any]]]:
        """Begin to copy tensors to NumPy arrays; the function waits for them."""
        if self.transfers is not None:
            return self.transfers.download(tensors)
        return lambda: [tensor.numpy() for tensor in tensors]

    def _forward(self, images: Tensor, precision: str) -> Tensor:
        """Run the network on images on the device: uint8, shape (images, h, w, 3), which are not changed.

        Returns
        -------
        Tensor
            float32, shape (images, classes, h / stride, w / stride) rounded up, on the device.
        """
        if self.transfers is None and torch.get_num_threads() != (threads := self._threads_for(images)):
            # OpenMP keeps this number per thread: the calling thread may have another one.
            torch.set_num_threads(threads)
        if precision not in self._forwards:
            # A fallback is made when the first image needs it.
            make = self._cuda_forward if self.transfers is not None else self._plain_forward
            self._forwards[precision] = make(precision)
        return self._forwards[precision](self._normalised(images)).float()

    def _threads_for(self, images: Tensor) -> int:
        """Return how many threads compute a batch; it follows from the shape of one image alone."""
        height, width = images.shape[1:3]
        gflop = height * width * self.network.backbone.gflop_per_megapixel / 1e6
        return 1 if gflop < _GFLOP_OF_ONE_THREAD else self.execution.threads

    def _normalised(self, images: Tensor) -> Tensor:
        """Return float32, shape (images, 3, h, w), normalised as in torchvision's preset."""
        # Stacked pixels are in channels-last order already, which suits the GPU's kernels and ours.
        batch = images.permute(0, 3, 1, 2)
        if self.transfers is None and self._cpu_network is None:
            batch = batch.contiguous()
        return batch.float().div_(255).sub_(self._mean).div_(self._std)

    def _cuda_forward(self, precision: str) -> Callable[[Tensor], Tensor]:
        """Return the network in its form for GPUs, or plain layers if it has some that are unknown there."""
        try:
            return CudaNetwork(self._model, self.device, DTYPES.get(precision, torch.float32))
        except TypeError:
            self._model = self._model.to(self.device).to(memory_format=torch.channels_last)
            return self._plain_forward(precision)

    def _plain_forward(self, precision: str) -> Callable[[Tensor], Tensor]:
        """Return the forward pass of PyTorch's modules."""
        dtype = DTYPES.get(precision)

        def forward(batch: Tensor) -> Tensor:
            with torch.autocast(self.device.type, dtype) if dtype else contextlib.nullcontext():
                logits: Tensor = self._model(batch)
                return logits

        return forward


class BatchLimits:
    """The largest batch of each shape that fits into the memory that is free now.

    After a batch has run out of memory, later batches of its shape are smaller; other shapes keep their size.
    `bytes_per_pixel` is the peak memory of a forward pass in float32, per pixel of input.
    """

    def __init__(self, execution: ExecutionConfig, bytes_per_pixel: int) -> None:
        self._execution = execution
        half = execution.precision in {"bf16", "fp16"} and execution.device.type == "cuda"
        self._bytes_per_pixel = bytes_per_pixel / 2 if half else bytes_per_pixel
        self._reduced: dict[Shape, int] = {}

    def images(self, shape: Shape) -> int:
        """Return the number of images of a shape, (h, w, 3), for one batch.

        It is 0 where a CPU has too little memory for one image: Linux would grant the memory, and kill the
        process when it is used. On a GPU it is at least 1, because a failed allocation there does no harm.
        """
        most = self._reduced.get(shape, self._execution.batch_size)
        free = self._free_memory()
        if free is None:
            return most
        room = int(free // (shape[0] * shape[1] * self._bytes_per_pixel))
        if self._execution.device.type == "cuda":
            return max(1, min(most, room))
        # Our kernels take the images of a batch one by one.
        return min(most, room) if self._execution.kernels == "torch" or room < 1 else most

    def did_not_fit(self, shape: Shape, count: int) -> None:
        """Halve the batch size of a shape after `count` images, at least 2, ran out of memory."""
        self._reduced[shape] = count // 2

    def _free_memory(self) -> int | None:
        """Return the bytes that a forward pass may use, or None where that is unknown."""
        device = self._execution.device
        if device.type != "cuda":
            return resources.available_memory()
        free = torch.cuda.mem_get_info(device)[0]
        # Memory that torch's allocator caches is free for this process, though not for others.
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached - _RESERVED_ON_CUDA


class _NoLogits(Exception):
    """An image cannot be predicted: its failure, or None where its logits are not finite."""

    def __init__(self, outcome: Failure | None) -> None:
        super().__init__(outcome)
        self.outcome = outcome


def _segmentation(maps: Sequence[NDArray[Any]], options: PredictionOptions, precision: str) -> Segmentation:
    """Return the labels, with the confidence and the logits where they are wanted; in this order."""
    confidence = maps[1] if options.confidence else None
    return Segmentation(maps[0], confidence, precision, maps[-1] if options.logits else None)


def _out_of_memory(shape: Shape) -> Failure:
    return Failure(
        FailureKind.OUT_OF_MEMORY,
        f"not enough memory for a network input of {shape[1]}x{shape[0]}; use a smaller --resize or --tile",
    )


def _not_finite(precision: str) -> Failure:
    way_out = (
        "float16 may be too narrow for these weights, try --precision fp32"
        if precision == "fp16"
        else "the weights are at fault, not the image"
    )
    return Failure(
        FailureKind.NOT_FINITE,
        f"the network's logits are not finite (NaN or infinity), so no class can be predicted; {way_out}",
    )


def _cpu_network(model: nn.Module, execution: ExecutionConfig) -> CpuNetwork | None:
    """Return the network in its CPU form, or None where PyTorch's modules compute it."""
    compiled = execution.kernels == "fast"
    if execution.device.type != "cpu" or not (compiled or execution.precision == "bf16"):
        return None
    from ..cpu.network import CpuNetwork

    if not compiled:
        from ..cpu.onednn_layers import OnednnLayers

        return CpuNetwork(model, OnednnLayers())
    if execution.precision == "bf16":
        from ..cpu.amx_layers import fastest_layers

        return CpuNetwork(model, fastest_layers(model))
    return CpuNetwork(model)

"""What a run is asked for, and what exactly that stands for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..common import palettes
from ..common.class_names import VOC_CLASSES, load_class_names
from ..common.output_layout import DEFAULT_KINDS
from ..inputs.decoder import DEFAULT_MAX_PIXELS
from ..models import download, loading, registry, weights
from ..outputs.settings import DEFAULT_SHORT_SIDE, LabelSettings, RequestedSettings


@dataclass(frozen=True)
class Machinery:
    """How the work is done; none of it shapes a label map.

    None stands for ``auto``. `decode_seconds` is how long one image may take to decode.
    """

    device: str = "auto"
    threads: int | None = None
    batch_size: int | None = None
    workers: int | None = None
    max_image_pixels: int = DEFAULT_MAX_PIXELS
    decode_seconds: float = 60.0


@dataclass(frozen=True)
class SegmentRequest:
    """Everything a run is asked for; defaults are those of ``fcn segment``."""

    inputs: Sequence[str] = ()
    listed: Sequence[str] | None = None
    root: str | None = None
    output: str = "fcn_output"
    backbone: str = registry.DEFAULT_BACKBONE
    weights_file: str | None = None
    class_names: str | None = None
    offline: bool = False
    resize: int | None = DEFAULT_SHORT_SIDE
    precision: str = "auto"
    kernels: str = "fast"
    min_confidence: float = 0.0
    kinds: Sequence[str] = DEFAULT_KINDS
    palette: str = "hub"
    keep_extension: bool = False
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    overwrite: bool = False
    retry_failed: bool = False
    fail_fast: bool = False
    dry_run: bool = False
    prune: str | None = None
    wait: float = 0.0
    machinery: Machinery = field(default_factory=Machinery)


@dataclass(frozen=True)
class ResolvedRequest:
    """What exactly is requested, known before the network is loaded (and for official weights, downloaded).

    `palette_name` is a palette's name, or the hash of its colours when it comes from a file. `checkpoint` is
    the user's own file, hashed. `names` are the class names, or None where the checkpoint's
    number of classes will give them.
    """

    settings: RequestedSettings
    backbone: registry.Architecture
    palette: palettes.Palette
    palette_name: str
    checkpoint: weights.WeightsFile | None
    names: tuple[str, ...] | None

    @classmethod
    def of(cls, job: SegmentRequest) -> ResolvedRequest:
        """Look up and hash what a job names.

        Raises
        ------
        RequestError
            A backbone, palette, names file or checkpoint does not exist or cannot be read.
        """
        backbone = registry.find(job.backbone)
        asked = load_class_names(job.class_names)
        checkpoint = None
        identity = backbone.sha256
        names: tuple[str, ...] | None = VOC_CLASSES
        if job.weights_file is not None:
            path = Path(job.weights_file)
            checkpoint = weights.WeightsFile(path, weights.sha256_of(path))
            if not checkpoint.sha256.startswith(identity):
                identity, names = checkpoint.sha256, None
        label = LabelSettings(
            backbone.name, identity, job.resize, job.precision, job.kernels, asked, job.min_confidence
        )
        colors = palettes.load(job.palette)
        palette = job.palette
        if palette not in palettes.BUILT_IN:
            palette = f"sha256:{hashlib.sha256(colors.tobytes()).hexdigest()[:16]}"
        requested = RequestedSettings(label, job.keep_extension)
        return cls(requested, backbone, colors, palette, checkpoint, asked or names)

    @property
    def label(self) -> LabelSettings:
        """The settings that shape labels."""
        return self.settings.labels

    def weights_file(
        self, *, offline: bool = False, progress: download.Progress | None = None
    ) -> weights.WeightsFile:
        """Return the weights, verified: the user's checkpoint, the bundled ones, or official ones.

        Raises
        ------
        WeightsError
            They are damaged, or cannot be had.
        """
        if self.checkpoint is not None:
            return self.checkpoint
        if isinstance(self.backbone.weights, registry.BundledWeights):
            return weights.verify(self.backbone.weights.path, self.backbone.sha256)
        return download.obtain(self.backbone.weights, offline=offline, progress=progress)

    def load_network(self, *, offline: bool = False) -> loading.LoadedModel:
        """Get the weights and load the network; raises what `weights_file` and `loading.load` do."""
        return loading.load(self.backbone, self.weights_file(offline=offline), self.names)

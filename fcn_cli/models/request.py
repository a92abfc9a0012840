"""Which network is asked for: its architecture, weights and class names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..common import store_urls
from ..common.class_names import VOC_CLASSES, load_class_names
from ..common.errors import RequestError
from ..common.wording import counted
from . import download, registry, weights


@dataclass(frozen=True)
class ModelRequest:
    """A network as users ask for it.

    `weights_file` is a checkpoint instead of the official weights, a path or URL. `class_names` is a file of
    names, ``voc``, or None. `offline` forbids to download weights.
    """

    backbone: str = registry.DEFAULT_BACKBONE
    weights_file: str | None = None
    class_names: str | None = None
    offline: bool = False

    def resolve(self) -> ResolvedModel:
        """Look up and hash what the request names.

        Raises
        ------
        RequestError
            The backbone, the file of names or the checkpoint does not exist or cannot be read.
        """
        architecture = registry.find(self.backbone)
        asked_names = load_class_names(self.class_names)
        identity, checkpoint = architecture.sha256, None
        known_names: tuple[str, ...] | None = VOC_CLASSES
        if self.weights_file is not None:
            path = self._weights_path(self.weights_file)
            checkpoint = weights.WeightsFile(path, weights.sha256_of(path))
            if not checkpoint.sha256.startswith(identity):
                identity, known_names = checkpoint.sha256, None
        if asked_names and known_names and len(asked_names) != len(known_names):
            count = counted(len(asked_names), "name")
            raise RequestError(
                f"--class-names: {count} for the {len(known_names)} classes of the official weights"
            )
        return ResolvedModel(architecture, identity, checkpoint, asked_names, known_names, self.offline)

    def _weights_path(self, given: str) -> Path:
        if store_urls.is_url(local := store_urls.local_path(given)):
            return download.obtain_url(local, offline=self.offline)
        return Path(local)


@dataclass(frozen=True)
class ResolvedModel:
    """A network as far as it is known before it is loaded (and its official weights are downloaded).

    `identity` is the sha256 of the weights; of official ones, known without the file, its published first 8
    digits. `checkpoint` is the user's own file, hashed. `asked_names` are the class names that were asked
    for; `own_names` those that the classes have otherwise, or None where their number gives them.
    """

    architecture: registry.Architecture
    identity: str
    checkpoint: weights.WeightsFile | None
    asked_names: tuple[str, ...] | None
    own_names: tuple[str, ...] | None
    offline: bool = False

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes, as far as they are known."""
        return self.asked_names or self.own_names

    def weights_file(self, progress: download.Progress | None = None) -> weights.WeightsFile:
        """Return the weights, verified: the user's checkpoint, the bundled ones, or official ones.

        Raises
        ------
        WeightsError
            They are damaged, or cannot be had.
        """
        if self.checkpoint is not None:
            return self.checkpoint
        source = self.architecture.weights
        if isinstance(source, registry.BundledWeights):
            return weights.verify(source.path, source.sha256)
        return download.obtain(source, offline=self.offline, progress=progress)

    def load(self, file: weights.WeightsFile) -> weights.LoadedModel:
        """Load the network from a file of `weights_file`; raises what `weights.load` does."""
        return weights.load(self.architecture, file, self.class_names)

"""The requested network: architecture, weights and class names."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..common import store_urls
from ..common.class_names import VOC_CLASSES, load_class_names
from ..common.errors import RequestError
from ..common.wording import counted
from . import download, registry, weights
from .card import IMAGENET, SUFFIX, Card


@dataclass(frozen=True)
class ModelRequest:
    """A network as users ask for it.

    `weights_file` is a checkpoint instead of the official weights, a path or URL. `class_names` is a file of
    names, ``voc``, or None. `card_file` is the checkpoint's card (see `Card`); None is the one beside it, if
    there is one. `offline` forbids to download weights.
    """

    backbone: str = registry.DEFAULT_BACKBONE
    weights_file: str | None = None
    class_names: str | None = None
    offline: bool = False
    card_file: str | None = None

    def resolve(self) -> ResolvedModel:
        """Look up and hash what the request names.

        Raises
        ------
        RequestError
            The backbone, the file of names, the card or the checkpoint does not exist or cannot be read.
        """
        architecture = registry.find(self.backbone)
        card_path = self.card_path()
        card = Card.read(card_path) if card_path is not None else Card()
        asked_names, names_from = load_class_names(self.class_names), "--class-names"
        if asked_names is None and card.class_names is not None:
            asked_names, names_from = card.class_names, str(card_path)
        if asked_names and card.class_names and len(asked_names) != len(card.class_names):
            count = counted(len(asked_names), "name")
            raise RequestError(f"--class-names: {count}, but {card_path} has {len(card.class_names)}")
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
                f"{names_from}: {count} for the {len(known_names)} classes of the official weights"
            )
        if card_path is not None and card.background is not None:
            background = card.background_index(asked_names or known_names, card_path)
        else:
            background = 0 if VOC_CLASSES in {known_names, asked_names} else None
        return ResolvedModel(
            *(architecture, identity, checkpoint, asked_names, known_names, self.offline),
            *(names_from, background, card, card_path),
        )

    def input_size(self) -> int | tuple[int, int] | None:
        """Return the size of the network's input that the card gives, as `Card.input_size`."""
        path = self.card_path()
        return Card.read(path).input_size if path is not None else None

    def card_path(self) -> Path | None:
        """Return the file of the checkpoint's card, or None where it has none."""
        if self.card_file is not None:
            if self.weights_file is None:
                raise RequestError("--network-card is the card of your own checkpoint: add --weights")
            return Path(self.card_file)
        if self.weights_file is None or store_urls.is_url(local := store_urls.local_path(self.weights_file)):
            return None
        beside = Path(local).with_suffix(SUFFIX)
        return beside if beside.is_file() else None

    def _weights_path(self, given: str) -> Path:
        if store_urls.is_url(local := store_urls.local_path(given)):
            return download.obtain_url(local, offline=self.offline)
        return Path(local)


@dataclass(frozen=True)
class ResolvedModel:
    """A network as far as it is known before it is loaded (and its official weights are downloaded).

    `identity` is the sha256 of the weights; of official ones, known without the file, its published first 8
    digits. `checkpoint` is the user's own file, hashed. `asked_names` are the class names that were asked
    for, by --class-names or the card; `own_names` those that the classes have otherwise, or None where their
    number gives them. `background` is the index of the class that is the background: without a card that says
    which, the official classes' first one, and of other classes none.
    """

    architecture: registry.Architecture
    identity: str
    checkpoint: weights.WeightsFile | None
    asked_names: tuple[str, ...] | None
    own_names: tuple[str, ...] | None
    offline: bool = False
    names_from: str = "--class-names"
    background: int | None = None
    card: Card = field(default_factory=Card)
    card_path: Path | None = None

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
        network = weights.load(self.architecture, file, self.class_names, self.names_from)
        classes = len(network.class_names)
        if self.background is not None and self.background >= classes:
            raise RequestError(
                f"{self.card_path}: background = {self.background}; the classes go from 0 to {classes - 1}"
            )
        return replace(network, background=self.background, normalisation=self.card.normalisation)

    @property
    def label_settings(self) -> dict[str, list[float]] | None:
        """What of the card shapes label maps, but the input's size; None where it says nothing of that."""
        how = self.card.normalisation
        return None if how == IMAGENET else {"mean": list(how.mean), "std": list(how.std)}

    def notes(self, network: weights.LoadedModel) -> list[str]:
        """Return what people should know of the network, and of how it came from its files."""
        origin, said = network.origin.described(), self.card.keys
        if self.asked_names != self.card.class_names:  # --class-names wins
            said = tuple(key for key in said if key != "class_names")
        own, official = self.checkpoint, self.architecture.note
        return [
            *([official] if official and own is None else []),
            *([f"{own.path.name}: {origin}"] if own is not None and origin else []),
            *([f"{self.card_path}: using {', '.join(said)}"] if said else []),
        ]

    def recorded(self, network: weights.LoadedModel) -> dict[str, Any]:
        """Return the same for the settings file."""
        found = {"card": str(self.card_path) if self.card_path else None, "licence": self.card.licence}
        return network.origin.as_json() | {key: value for key, value in found.items() if value}

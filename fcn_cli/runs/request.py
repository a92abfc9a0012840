"""The request for a run, made of those of the other packages, and its resolved settings."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..common import store_urls
from ..common.errors import RequestError
from ..common.output_layout import CONFIDENCE, LOGITS
from ..common.shard import Shard
from ..inference.options import InferenceOptions
from ..inputs.decode_options import DecodeOptions
from ..inputs.discovery import InputRequest
from ..models.request import ModelRequest, ResolvedModel
from ..outputs.label_rules import LabelRules, ResolvedRules
from ..outputs.looks import Style
from ..outputs.request import OutputRequest
from ..outputs.settings import LabelSettings, RequestedSettings, recorded_class_names

if TYPE_CHECKING:
    from ..inference.labels import PredictionOptions


@dataclass(frozen=True)
class PredictionRequest:
    """How images become label maps: the network, how images are decoded, how it is run, what follows."""

    model: ModelRequest = field(default_factory=ModelRequest)
    decoding: DecodeOptions = field(default_factory=DecodeOptions)
    inference: InferenceOptions = field(default_factory=InferenceOptions)
    rules: LabelRules = field(default_factory=LabelRules)

    def wanted(self, types: Collection[str], class_names: Sequence[str]) -> PredictionOptions:
        """Return what the network is to predict for these output types; imports torch.

        Raises
        ------
        RequestError
            ``--min-confidence`` names no class of the network.
        """
        from ..inference.labels import PredictionOptions

        least = self.inference.min_confidence
        return PredictionOptions(
            CONFIDENCE in types, least.others, least.by_index(class_names), logits=LOGITS in types
        )

    def label_settings(self, model: ResolvedModel) -> LabelSettings:
        """Return the settings that shape label maps, with this request's model resolved."""
        return LabelSettings(
            backbone=model.architecture.name,
            weights=model.identity,
            resize=self.decoding.short_side,
            precision=self.inference.precision,
            kernels=self.inference.kernels,
            min_confidence=self.inference.min_confidence.setting(model.class_names),
            tile=self.inference.views.tile,
            overlap=self.inference.views.shared,
            scales=self.decoding.scales,
            flip=self.inference.views.flip,
            stretch=self.decoding.rendering.stretch,
            alpha=self.decoding.rendering.alpha,
            map=self.rules.resolve(model.class_names).text,
            min_region=self.rules.min_region,
            network_card=model.label_settings,
        )


@dataclass(frozen=True)
class ResumeOptions:
    """What a run does about what is there.

    `overwrite` redoes what is done and allows other settings. `retry_failed` also retries images whose
    content is to blame. `prune` removes images that are gone (`pruning.CAREFUL` or `pruning.FORCE`), or is
    None.
    """

    overwrite: bool = False
    retry_failed: bool = False
    prune: str | None = None


@dataclass(frozen=True)
class SegmentRequest:
    """Everything that a run is asked for; defaults are those of ``fcn segment``.

    `wait` is for how many seconds to wait for another run into the same output directory. `fail_fast` stops
    at the first image that fails; `dry_run` plans and writes nothing. `shard` takes one shard of the images.
    `ray` is where the images are segmented, ``local`` or HOST:PORT (see `cluster.session`), or None for here.
    """

    inputs: InputRequest
    output: OutputRequest = field(default_factory=OutputRequest)
    prediction: PredictionRequest = field(default_factory=PredictionRequest)
    resume: ResumeOptions = field(default_factory=ResumeOptions)
    wait: float = 0.0
    fail_fast: bool = False
    dry_run: bool = False
    shard: Shard | None = None
    ray: str | None = None

    def check(self) -> None:
        """Raise RequestError when the parts of the request exclude each other."""
        if len(self.inputs.inputs) == 1 and _is_one_directory(self.inputs.inputs[0], self.output.directory):
            raise RequestError(
                f"{self.inputs.inputs[0]}: is also the --output; use another --output (it may be inside "
                "the input)"
            )
        averaged = len(self.prediction.decoding.scales) > 1 or self.prediction.inference.views.flip
        if LOGITS in self.output.types and averaged:
            raise RequestError(
                "--write logits cannot be combined with --scales or --flip, which average probabilities"
            )
        # What needs the whole directory, or all images, cannot be done by one shard.
        needs_all = {
            "--prune": self.resume.prune is not None,
            "--output -": self.output.directory == "-",
            "--ray": self.ray is not None,
        }
        for option, is_given in needs_all.items():
            if is_given and self.shard is not None:
                raise RequestError(f"--shard and {option} exclude each other; leave one of them out")

    def resolve(self) -> ResolvedRequest:
        """Look up and hash what the request names.

        Raises
        ------
        RequestError
            A backbone, palette, class, names file or checkpoint does not exist or cannot be read.
        """
        model = self.prediction.model.resolve()
        recorded = recorded_class_names(self.output.store)
        labels = replace(self.prediction.label_settings(model), class_names=recorded)
        weights_names = {model.architecture.sha256: "official weights"}
        if model.checkpoint is not None:
            weights_names[model.identity] = model.checkpoint.path.name
        size = model.card.input_size
        from_card = {"resize": f"input_size in {model.card_path}"} if size and size == labels.resize else {}
        settings = RequestedSettings(labels, self.output.keep_extension, weights_names, from_card)
        rules = self.prediction.rules.resolve(model.class_names)
        names = rules.names(model.class_names) if model.class_names else None
        own_names = rules.names(model.own_names) if model.own_names else ()
        look = self.output.look.resolve(names, recorded or own_names, rules.background(model.background))
        return ResolvedRequest(settings, model, rules, names, look)


def _is_one_directory(given: str, output: str) -> bool:
    given, output = store_urls.local_path(given), store_urls.local_path(output)
    if store_urls.is_url(given) or store_urls.is_url(output):
        return given.rstrip("/") == output.rstrip("/")
    return os.path.isdir(given) and os.path.realpath(given) == os.path.realpath(output)


@dataclass(frozen=True)
class ResolvedRequest:
    """What exactly is requested, known before the network is loaded.

    `class_names` are the names of the classes in masks, as far as they are known.
    """

    settings: RequestedSettings
    model: ResolvedModel
    rules: ResolvedRules
    class_names: tuple[str, ...] | None
    look: Style

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the settings that shape label maps."""
        return self.settings.labels.fingerprint()

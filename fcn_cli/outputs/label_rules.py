"""Post-processing of label maps: merge classes, then small regions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ..common import files
from ..common.class_map import ClassMap, Indices
from ..common.class_names import class_name
from ..common.errors import RequestError
from ..common.label_map import VOID_INDEX, LabelMap, Segmentation
from ..common.regions import sieve

_OTHERS = "other"


def read_map(given: str | os.PathLike[str] | Mapping[str, int] | None) -> ClassMap | None:
    """Return the classes that ``--map`` merges and renames; None without it.

    Parameters
    ----------
    given
        Rules such as ``pet:cat+dog=2,*=0``; or a mapping of what is before the ``=`` to what is behind it, or
        the path of a JSON file with that.

    Raises
    ------
    RequestError
        It is none, or the file cannot be read.
    """
    if given is None:
        return None
    text = given if isinstance(given, str) else ""
    try:
        if "=" in text:
            return ClassMap.parse(text, naming=True)
        rules = given if isinstance(given, Mapping) else files.read_small_json(Path(given), follow=True)
        if isinstance(rules, Mapping):
            parts = ((str(left), str(target)) for left, target in rules.items())
            return ClassMap.of(parts, naming=True)
    except OSError as error:
        raise RequestError(
            f"--map {given}: cannot be read ({error.strerror}); {ClassMap.TAKES}, or a JSON file, are needed"
        ) from None
    except ValueError:
        pass
    raise RequestError(f'--map {given}: {ClassMap.TAKES}, or a JSON file with {{"cat+dog": 2}}, are needed')


@dataclass(frozen=True)
class LabelRules:
    """What is done to each label map that the network predicts; by default nothing.

    Parameters
    ----------
    classes
        Which class becomes which.
    min_region
        Regions of fewer connected pixels take the class of their largest neighbour (see `regions.sieve`).
    """

    classes: ClassMap | None = None
    min_region: int = 0

    def resolve(self, class_names: Sequence[str] | None) -> ResolvedRules:
        """Look the classes up, by the names of the network's; None where they have numbers only.

        Raises
        ------
        RequestError
            There is no such class.
        """
        if self.classes is None:
            return ResolvedRules(None, self.min_region)
        names = class_names or [class_name((), index) for index in range(VOID_INDEX)]
        indices = self.classes.indices("--map", dict(enumerate(names)), None)
        if class_names and indices.rest is None:
            _refuse_collisions(self.classes, indices, class_names)
        return ResolvedRules(indices, self.min_region, self.classes.names)


@dataclass(frozen=True)
class ResolvedRules:
    """`LabelRules` in indices; `new_names` are names of targets, which are indices as text."""

    classes: Indices | None = None
    min_region: int = 0
    new_names: tuple[tuple[str, str], ...] = ()

    def __call__(self, predicted: Segmentation) -> Segmentation:
        """Return the segmentation with other labels; the confidence stays that of the network's class."""
        labels = self.labels(predicted.labels)
        return predicted if labels is predicted.labels else replace(predicted, labels=labels)

    def labels(self, labels: LabelMap) -> LabelMap:
        """Return a label map with the classes that they become, and small regions merged."""
        return sieve(labels if self.classes is None else self._table[labels], self.min_region)

    @cached_property
    def _table(self) -> LabelMap:
        return np.array([self._target(index) for index in range(VOID_INDEX + 1)], np.uint8)

    def _target(self, index: int) -> int:
        assert self.classes is not None  # noqa: S101 - else nothing is mapped
        rest = self.classes.rest if index != VOID_INDEX else None
        return self.classes.named.get(index, index if rest is None else rest)

    def background(self, index: int | None) -> int | None:
        """Return which class the background becomes; None where there is none, or where it becomes void."""
        if index is None or self.classes is None:
            return index
        target = self._target(index)
        return target if target != VOID_INDEX else None

    @property
    def text(self) -> str | None:
        """The map as it stands in settings, in indices; None where it changes nothing."""
        if self.classes is None:
            return None
        changed = {index: target for index, target in enumerate(self._table.tolist()) if index != target}
        if self.classes.rest is None:
            return ",".join(f"{index}={target}" for index, target in changed.items()) or None
        named = sorted(self.classes.named.items())
        return ",".join(f"{index}={target}" for index, target in (*named, ("*", self.classes.rest)))

    def names(self, class_names: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the classes that there are afterwards, by index.

        A class that several become is called by all their names, ``cat+dog``, unless it has a new name. Those
        that are not named are its own class, or together the background when that is among them.
        """
        if self.classes is None:
            return tuple(class_names)
        parts: dict[int, list[str]] = {}
        for index, target in self.classes.named.items():
            parts.setdefault(target, []).append(class_name(class_names, index))
        rest = [index for index in range(len(class_names)) if index not in self.classes.named]
        if self.classes.rest is None:
            for index in rest:
                parts.setdefault(index, []).insert(0, class_names[index])
        elif rest:
            name = class_names[0] if rest[0] == 0 else class_names[rest[0]] if len(rest) == 1 else _OTHERS
            parts.setdefault(self.classes.rest, []).insert(0, name)
        names = {target: "+".join(own) for target, own in parts.items()}
        names |= {int(target): name for target, name in self.new_names if target.isdigit()}
        names.pop(VOID_INDEX, None)
        return tuple(names.get(index, class_name((), index)) for index in range(max(names, default=0) + 1))


def _refuse_collisions(classes: ClassMap, indices: Indices, names: Sequence[str]) -> None:
    """Refuse a number as target that is the index of a class which keeps it: 1 for person is aeroplane's.

    That classes become the background, ``person=0``, is what people mean.
    """
    renamed = {target for target, _ in classes.names}
    numbers = [text for _, text in classes.rules if text.isdigit() and (text != "0" or text in renamed)]
    for target in map(int, numbers):
        if target < len(names) and target not in indices.named:
            raise RequestError(
                f"--map: {target} is the index of {names[target]}, which keeps it; choose another one, add "
                f"'*=0' for all other classes, or name {names[target]} to merge them"
            )


AS_PREDICTED = ResolvedRules()

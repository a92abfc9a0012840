"""Rules that map classes, such as ``person=1,cat+dog=2,*=0``.

`ClassMap.parse` reads the text where an option is read, before any class is known; `ClassMap.indices` finds
the classes once their names are. So an option that takes a map keeps a `ClassMap`, and the library asks it
for indices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from .class_names import find_class, hint_at_classes
from .errors import RequestError
from .label_map import VOID_INDEX

REST = "*"
_VOID = "void"
_MOST_DIGITS = 5


@dataclass(frozen=True)
class Indices:
    """A map of indices: `named` has the target of each source that is named, `rest` that of all others.

    Without a `rest`, None, what is not named stays what it is. Void (255) is never among the rest.
    """

    named: Mapping[int, int]
    rest: int | None


@dataclass(frozen=True)
class ClassMap:
    """Rules, in the order of their writing: sources, and what they become.

    A source and a target are each a name or an index; ``void`` and 255 are void. `names` are new names of
    targets.
    """

    rules: tuple[tuple[str, str], ...]
    rest: str | None = None
    names: tuple[tuple[str, str], ...] = ()

    TAKES: ClassVar = "rules such as 'person=1,cat+dog=2,*=0'"
    """What an option with a map takes, for its message."""

    @classmethod
    def parse(cls, text: str, *, naming: bool = False) -> ClassMap:
        """Parse a map; with `naming` also new names before the sources, ``pet:cat+dog=2``.

        Raises
        ------
        ValueError
            It is none.
        """
        parts = filter(None, (part.strip() for part in text.split(",")))
        return cls.of((part.rpartition("=")[::2] for part in parts), naming=naming)

    @classmethod
    def of(cls, parts: Iterable[tuple[str, str]], *, naming: bool = False) -> ClassMap:
        """Return the map of pairs of sources and target, as `parse` does."""
        rules: dict[str, str] = {}
        names: dict[str, str] = {}
        for left, target in ((left, target.strip()) for left, target in parts):
            if naming and ":" in left:
                name, _, left = left.partition(":")
                if not name.strip() or names.setdefault(target, name.strip()) != name.strip():
                    raise ValueError(f"no name: {name!r}")
            for source in (source.strip() for source in left.split("+")):
                if not source or not target or source in rules:
                    raise ValueError(f"no rule: {left!r}")
                rules[source] = target
        rest = rules.pop(REST, None)
        if not rules and rest is None:
            raise ValueError("no rule")
        return cls(tuple(rules.items()), rest, tuple(names.items()))

    def __str__(self) -> str:
        return ",".join(f"{source}={target}" for source, target in (*self.rules, (REST, self.rest)) if target)

    def indices(
        self, option: str, sources: Mapping[int, str] | None, targets: Sequence[str] | None
    ) -> Indices:
        """Return the map in indices.

        Parameters
        ----------
        option
            The option's name, for messages.
        sources
            The names of the sources by index; None where they have numbers only.
        targets
            The names of the targets in index order; None where any index up to 255 will do.

        Raises
        ------
        RequestError
            There is no such class, or one is named twice; the message suggests what is meant.
        """
        named: dict[int, int] = {}
        by_target = None if targets is None else dict(enumerate(targets))

        def target(text: str) -> int:
            if targets is None and not text.isdigit() and text.casefold() != _VOID:
                raise RequestError(f"{option}: {text!r} is not an index from 0 to 255, or void")
            found = _find(option, text, by_target)
            if found > VOID_INDEX:
                raise RequestError(
                    f"{option}: {text} is more than 255, the largest index that a mask can have"
                )
            return found

        for source, text in self.rules:
            index = _find(option, source, sources)
            if index in named:
                raise RequestError(f"{option}: {source} is class {index}, which is listed twice")
            named[index] = target(text)
        return Indices(named, None if self.rest is None else target(self.rest))


def _find(option: str, text: str, names: Mapping[int, str] | None) -> int:
    is_number = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    known = tuple((names or {}).values())
    place = find_class(text, known) if not is_number or text in known else None
    if names is not None and place is not None:
        return tuple(names)[place]
    if text.casefold() == _VOID or (is_number and int(text) == VOID_INDEX):
        return VOID_INDEX
    if is_number and (names is None or int(text) in names):
        return int(text)
    if names is None:
        raise RequestError(f"{option}: {text!r} is not an index, and there are no class names; give an index")
    raise RequestError(f"{option}: there is no class {text!r}; {hint_at_classes(text, known)}")

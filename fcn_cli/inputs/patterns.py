"""Glob patterns for paths below a directory: ``--include`` and ``--exclude``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..common.errors import RequestError

NOT_INCLUDED = "not included"
_BELOW = "/**"
_MAGIC = re.compile(r"[*?\[\\]")


def to_regex(pattern: str) -> str:
    r"""Return the regular expression that matches the same whole paths as a glob pattern.

    ``*`` matches any text without a slash, ``?`` one character other than a slash, ``[a-z]`` and ``[!a-z]``
    (or ``[^a-z]``) one character of a class, never a slash; ``**`` matches any text, and ``**/`` zero or more
    directories. ``\`` makes the next character literal. A ``[`` without a ``]`` is an ordinary character.
    """
    parts = []
    position = 0
    while position < len(pattern):
        token = _TOKEN.match(pattern, position)
        assert token is not None  # noqa: S101 - the last alternative matches any character
        position = token.end()
        match token.lastgroup:
            case "directories":
                # Only at the beginning of a name, not in the middle as in `a**/b`.
                parts.append("(?:.*/)?")
            case "anything":
                parts.append(".*")
            case "name":
                parts.append("[^/]*")
            case "character":
                parts.append("[^/]")
            case "class":
                parts.append(_class(token["class"][1:-1]))
            case _:
                parts.append(re.escape(token["escaped"] or token["literal"]))
    return "".join(parts)


_TOKEN = re.compile(
    r"""
      (?P<directories> (?:(?<=/)|\A) (?:\*\*+/)+ )
    | (?P<anything> \*\*+ )
    | (?P<name> \* )
    | (?P<character> \? )
    | (?P<class> \[ (?> [!^]? \]? ) (?: \\. | [^\]\\] )* \] )
    | \\ (?P<escaped> . )
    | (?P<literal> . )
    """,
    re.VERBOSE | re.DOTALL,
)
_MEMBER = re.compile(r"(?P<first>\\.|.)(?:-(?P<last>\\.|.))?", re.DOTALL)


def _class(content: str) -> str:
    """Return the regular expression of a character class, given the text between its brackets."""
    negated = content.startswith(("!", "^"))
    members = []
    for member in _MEMBER.finditer(content[negated:]):
        first, last = member["first"][-1], (member["last"] or member["first"])[-1]
        # A reversed range is empty.
        if first <= last:
            members.append(f"{re.escape(first)}-{re.escape(last)}")
    if negated:
        return f"[^/{''.join(members)}]"
    return f"(?!/)[{''.join(members)}]" if members else "(?!)"


class PathFilter:
    """Selects paths below a directory that match some `include` (without any: all) and no `exclude` pattern.

    Raises RequestError for a pattern that is empty or cannot match any path.
    """

    def __init__(
        self, include: Sequence[str] = (), exclude: Sequence[str] = (), *, ignore_case: bool = False
    ) -> None:
        flags = re.DOTALL | (re.IGNORECASE if ignore_case else re.NOFLAG)
        excluded = _as_paths("--exclude", exclude)
        self._include = _union(_as_paths("--include", include), flags)
        self._exclude = _union(excluded, flags)
        self._everything = "**" in excluded
        self._pruned = _union(
            (
                pattern.removesuffix(_BELOW)
                for pattern in excluded
                if pattern.endswith(_BELOW) and not pattern.endswith(f"\\{_BELOW}")
            ),
            flags,
        )

    def left_out(self, path: str) -> str:
        """Return why a file (its path below the directory) is left out; empty if it is selected."""
        if self._exclude is not None and self._exclude.fullmatch(path):
            return "excluded"
        if self._include is not None and not self._include.fullmatch(path):
            return NOT_INCLUDED
        return ""

    def leaves_out_all_below(self, directory: str) -> bool:
        """Return True only if nothing below a directory can be selected; False if that is not certain."""
        if self._everything or self._pruned is None or not directory:
            return self._everything
        return self._pruned.fullmatch(directory) is not None


def _as_paths(option: str, patterns: Iterable[str]) -> list[str]:
    """Normalise patterns to the form of paths; a plain name also matches everything below that directory."""
    normalised = []
    for pattern in patterns:
        if not pattern:
            raise RequestError(f"{option}: the pattern is empty; is a variable in your script not set?")
        if pattern.startswith(("/", "../")):
            raise RequestError(
                f"{option} {pattern}: can never match: paths below a directory do not begin like this"
            )
        path = pattern
        while path.startswith("./"):
            path = path[2:].lstrip("/")
        if path in {"", "."}:
            path = "**"
        elif path.endswith("/"):
            path = path.rstrip("/") + _BELOW
        normalised.append(path)
        if not _MAGIC.search(path):
            normalised.append(path + _BELOW)
    return normalised


def _union(patterns: Iterable[str], flags: re.RegexFlag) -> re.Pattern[str] | None:
    alternatives = [f"(?:{to_regex(pattern)})" for pattern in patterns]
    return re.compile("|".join(alternatives), flags) if alternatives else None

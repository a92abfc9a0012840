"""Glob patterns on the paths below a directory: ``--include`` and ``--exclude``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..common.errors import RequestError

_BELOW = "/**"
_MAGIC = re.compile(r"[*?\[\\]")


def to_regex(pattern: str) -> str:
    r"""Return the regular expression that matches the same whole paths as a glob pattern.

    ``*`` is any text without a slash, ``?`` one character that is no slash, ``[a-z]`` and ``[!a-z]`` (or
    ``[^a-z]``) one of a class, never a slash; ``**`` is any text, and ``**/`` any number of directories, none
    included. ``\`` takes the next character literally. A ``[`` without its ``]`` is an ordinary character.
    """
    parts = []
    at = 0
    while at < len(pattern):
        found = _TOKEN.match(pattern, at)
        assert found is not None  # noqa: S101 - the last alternative takes any character
        at = found.end()
        match found.lastgroup:
            case "directories":
                # Where a name begins: not in the middle of one, as in `a**/b`.
                parts.append("(?:.*/)?")
            case "anything":
                parts.append(".*")
            case "name":
                parts.append("[^/]*")
            case "character":
                parts.append("[^/]")
            case "class":
                parts.append(_class(found["class"][1:-1]))
            case _:
                parts.append(re.escape(found["escaped"] or found["literal"]))
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
    """Return the regular expression of a character class, given what is between its brackets."""
    negated = content.startswith(("!", "^"))
    members = []
    for member in _MEMBER.finditer(content[negated:]):
        first, last = member["first"][-1], (member["last"] or member["first"])[-1]
        # A range that runs backwards holds nothing.
        if first <= last:
            members.append(f"{re.escape(first)}-{re.escape(last)}")
    if negated:
        return f"[^/{''.join(members)}]"
    return f"(?!/)[{''.join(members)}]" if members else "(?!)"


class PathFilter:
    """Which of the paths below a directory are wanted.

    Parameters
    ----------
    include
        Only what one of these patterns matches is wanted; without any, everything is.
    exclude
        What one of these patterns matches is not wanted, included or not.

    Raises
    ------
    RequestError
        A pattern can match no path.
    """

    def __init__(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        excluded = _as_paths("--exclude", exclude)
        self._include = _union(_as_paths("--include", include))
        self._exclude = _union(excluded)
        self._everything = "**" in excluded
        self._pruned = _union(
            pattern.removesuffix(_BELOW)
            for pattern in excluded
            if pattern.endswith(_BELOW) and not pattern.endswith(f"\\{_BELOW}")
        )

    def left_out(self, path: str) -> str:
        """Say how a file, by its path below the directory, is left out; nothing where it is wanted."""
        if self._exclude is not None and self._exclude.fullmatch(path):
            return "excluded"
        if self._include is not None and not self._include.fullmatch(path):
            return "not included"
        return ""

    def leaves_out_all_below(self, directory: str) -> bool:
        """Say whether nothing below a directory can be wanted; False also where that is not easy to tell."""
        if self._everything or self._pruned is None or not directory:
            return self._everything
        return self._pruned.fullmatch(directory) is not None


def _as_paths(option: str, patterns: Iterable[str]) -> list[str]:
    """Return patterns as paths are written; a plain name stands for all below such a directory, too."""
    written = []
    for pattern in patterns:
        if not pattern:
            raise RequestError(f"{option}: the pattern is empty; is a variable in your script not set?")
        if pattern.startswith(("/", "../")):
            raise RequestError(
                f"{option} {pattern}: can match nothing, as paths below a directory never begin so"
            )
        path = pattern
        while path.startswith("./"):
            path = path[2:].lstrip("/")
        if path in {"", "."}:
            path = "**"
        elif path.endswith("/"):
            path = path.rstrip("/") + _BELOW
        written.append(path)
        if not _MAGIC.search(path):
            written.append(path + _BELOW)
    return written


def _union(patterns: Iterable[str]) -> re.Pattern[str] | None:
    alternatives = [f"(?:{to_regex(pattern)})" for pattern in patterns]
    return re.compile("|".join(alternatives), re.DOTALL) if alternatives else None

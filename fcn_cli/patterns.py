"""Glob patterns on the paths below a directory: ``--include`` and ``--exclude``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .errors import RequestError

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
        included = [_normal("--include", pattern) for pattern in include]
        excluded = [_normal("--exclude", pattern) for pattern in exclude]
        self._include = _union(included)
        self._exclude = _union(excluded)
        self._pruned = _union(pattern[: -len(_BELOW)] for pattern in excluded if _takes_all_below(pattern))
        self._everything = "**" in excluded

    def wants(self, path: str) -> bool:
        """Say whether a file is wanted, given its path with slashes below the directory that is searched."""
        if self._exclude is not None and self._exclude.fullmatch(path):
            return False
        return self._include is None or self._include.fullmatch(path) is not None

    def leaves_out_all_below(self, directory: str) -> bool:
        """Say whether nothing below a directory can be wanted; False also where that is not easy to tell."""
        return self._everything or (
            self._pruned is not None and self._pruned.fullmatch(directory) is not None
        )


def _normal(option: str, pattern: str) -> str:
    """Return a pattern as paths are written; a directory's plain name stands for all that is below it."""
    if not pattern:
        raise RequestError(f"{option}: the pattern is empty; is a variable in your script not set?")
    if pattern.startswith(("/", "../")):
        raise RequestError(
            f"{option} {pattern}: can match nothing; patterns are matched against the paths below a directory"
        )
    while pattern.startswith("./"):
        pattern = pattern[2:].lstrip("/")
    if pattern in {"", "."}:
        return "**"
    return f"{pattern.rstrip('/')}{_BELOW}" if pattern.endswith("/") else pattern


def _takes_all_below(pattern: str) -> bool:
    return pattern.endswith(_BELOW) and not pattern.endswith(f"\\{_BELOW}")


def _union(patterns: Iterable[str]) -> re.Pattern[str] | None:
    alternatives = []
    for pattern in patterns:
        alternatives.append(to_regex(pattern))
        if not _MAGIC.search(pattern):
            # A file and a directory cannot have one name.
            alternatives.append(to_regex(pattern + _BELOW))
    return re.compile("|".join(f"(?:{one})" for one in alternatives), re.DOTALL) if alternatives else None

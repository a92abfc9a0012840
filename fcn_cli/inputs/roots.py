"""Names of listed files: their paths relative to ``--root``."""

from __future__ import annotations

import os

from ..common import files, store_urls
from ..common.errors import RequestError
from ..common.redaction import public_url
from ..common.store_urls import AbsolutePaths


class Root:
    """The directory, or URL, to which the output names of listed files are relative.

    Parameters
    ----------
    given
        As the user gave it; None is the current directory.
    """

    def __init__(self, given: str | None) -> None:
        self._url = given if given is not None and store_urls.is_url(given) else None
        self._root = os.path.abspath(given or ".")
        self._real_root = os.path.realpath(self._root)
        self._absolute = AbsolutePaths()

    def below(self, given: str) -> str:
        """Return a file's POSIX path below this directory.

        Raises
        ------
        RequestError
            It is not below it.
        """
        name = self._url_below(given) if store_urls.is_url(given) else self._path_below(given)
        if name:
            return name
        kind = "URL" if store_urls.is_url(given) else "directory"
        raise RequestError(
            f"{public_url(given)}: not below {self._url or self._root}; set --root to the {kind} "
            "that output names are relative to"
        )

    def _url_below(self, url: str) -> str:
        if self._url is None or store_urls.split(url).root != store_urls.split(self._url).root:
            return ""
        name, top = store_urls.name_in(url), store_urls.name_in(self._url).rstrip("/")
        if not top:
            return name
        return name[len(top) + 1 :] if name.startswith(f"{top}/") else ""

    def _path_below(self, given: str) -> str:
        if self._url is not None:
            return ""
        path = self._absolute(given)
        if not files.is_within(path, self._root):
            path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        for root in (self._root, self._real_root):
            if files.is_within(path, root) and path != root:
                return path[len(root.rstrip(os.sep)) + 1 :].replace(os.sep, "/")
        return ""

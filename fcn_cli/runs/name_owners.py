"""Who owns an output name: a photo of an earlier run keeps it for as long as it exists."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..common import output_layout, store_urls
from ..common.absolute_paths import AbsolutePaths
from ..inputs.discovery import Source
from ..inputs.remote_photos import KnownObjects
from ..outputs.journal import Journal
from ..outputs.record import Record


class NameOwners:
    """Finds photos that would take the output name of another one, which still exists.

    Parameters
    ----------
    journal
        The records of the output directory.
    pruned
        Images whose records are to be removed; they own no names any more.
    path_of
        Returns where an output name is written, for messages.
    """

    def __init__(self, journal: Journal, pruned: frozenset[str], path_of: Callable[[str], object]) -> None:
        self._journal = journal
        self._pruned = pruned
        self._path_of = path_of
        self._absolute = AbsolutePaths()
        self._objects = KnownObjects()

    def why_refused(self, source: Source, record: Record | None) -> str | None:
        """Return why a photo is refused, when another photo that still exists owns its name; else None.

        `record` is that of the photo's own name, if there is one.
        """
        if not source.output or not len(self._journal):
            return None
        if record is not None and source.image not in self._pruned and self._is_another(record.path, source):
            return self._text(record, source)
        own = record.outputs if record is not None else ()
        for kind in self._journal.kinds:
            name = output_layout.output_file(source.output, kind)
            if name in own:
                continue
            owner = self._journal.owner(name)
            if owner is None or owner == source.image or owner in self._pruned:
                continue
            other = self._journal.get(owner)
            if other is not None and self._is_another(other.path, source):
                return self._text(other, source)
        return None

    def is_there(self, recorded: str) -> bool:
        """Say whether a recorded photo, or a broken link to one, is still where it was."""
        if store_urls.is_url(recorded):
            return self._objects.exists(recorded)
        return os.path.lexists(recorded)

    def _text(self, owner: Record, source: Source) -> str:
        way_out = "use another --output, or segment both in one command"
        if os.path.dirname(owner.path) == os.path.dirname(self._absolute(source.path)):
            way_out = "rename one, or use another --output with --keep-extension"
        name = self._path_of(source.output)
        return f"{name} belongs to {owner.path}, and {source.given} would overwrite it; {way_out}"

    def _is_another(self, recorded: str, source: Source) -> bool:
        """Say whether a recorded photo still exists and is another file than the source."""
        if recorded == self._absolute(source.path):
            return False
        if store_urls.is_url(recorded):
            return self._objects.exists(recorded)
        try:
            return not os.path.samefile(recorded, source.path)
        except OSError:
            return os.path.exists(recorded)

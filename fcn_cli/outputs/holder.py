"""``.fcn.holder.json``: which process holds an output directory, or one shard of it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ..common import files
from ..common.output_layout import HOLDER_FILE
from ..common.processes import ProcessIdentity
from ..common.shard import Shard, shard_file
from .output_store import OutputStore, Place


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds an output directory, or held it and was killed.

    `temporary_prefix` begins the names of its temporary files. `settings` stands for the settings of its
    run; it is empty until they are known. `merging` says that it merges journals, which is soon over.
    """

    process: ProcessIdentity
    temporary_prefix: str
    settings: str = ""
    merging: bool = False

    def save(self, output: OutputStore, shard: Shard | None) -> None:
        """Write the file of a directory or a shard; raises OSError."""
        content = {
            **self.process.as_json(),
            "temporaries": self.temporary_prefix,
            "settings": self.settings,
            "merging": self.merging,
        }
        output.write_text(shard_file(HOLDER_FILE, shard), json.dumps(content) + "\n")

    @classmethod
    def read(cls, output: Place, shard: Shard | None = None) -> Holder | None:
        """Return who holds a directory or a shard; None without such a file."""
        try:
            value = files.read_small_json(output / shard_file(HOLDER_FILE, shard))
            return cls(
                ProcessIdentity.from_json(value),
                str(value.get("temporaries", "")),
                str(value.get("settings", "")),
                bool(value.get("merging", False)),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
            return None

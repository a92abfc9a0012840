"""What an output directory is known by: the names of its files and directories."""

from __future__ import annotations

import json
from pathlib import Path

SETTINGS_FILE = "settings.json"
SETTINGS_MARK = "fcn_settings"
"""The key that makes a ``settings.json`` ours, and its folder an output directory."""
OUTPUT_FOLDERS = frozenset({"masks", "color", "overlay", "confidence", "cutout"})


def is_output_folder(folder: str) -> bool:
    """Say whether a folder is the output directory of some run (known by its settings file)."""
    try:
        content = json.loads(Path(folder, SETTINGS_FILE).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and SETTINGS_MARK in content

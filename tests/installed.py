"""What is installed beside this package, as an index would give it."""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path

_NOT_FROM_AN_INDEX = ("fcn_cli", "fcn-cli", "__editable__", "pip", "__pycache__")


def link_packages(folder: Path) -> Path:
    """Link every installed package into a folder for PYTHONPATH, but for ours and pip; return the folder."""
    folder.mkdir()
    torch = importlib.util.find_spec("torch")
    assert torch is not None
    assert torch.origin is not None
    places = {
        sysconfig.get_path("purelib"),
        sysconfig.get_path("platlib"),
        str(Path(torch.origin).parents[1]),
    }
    for path in sorted(path for place in places for path in Path(place).iterdir()):
        link = folder / path.name
        if not path.name.startswith(_NOT_FROM_AN_INDEX) and path.suffix != ".pth" and not link.exists():
            link.symlink_to(path)
    return folder

"""Everything here needs a CUDA device; without one each test is skipped, with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    reason = None
    if torch.version.cuda is None:
        reason = f"needs a CUDA device; this PyTorch ({torch.__version__}) is built without CUDA"
    elif not torch.cuda.is_available():
        reason = "needs a CUDA device, and this machine has none that PyTorch can use"
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))

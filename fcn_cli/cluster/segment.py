"""``fcn segment --ray``: a run whose photos are segmented by actors on Ray."""

from __future__ import annotations

from importlib.util import find_spec

from ..common.errors import RequestError
from ..runs import segment as segmentation
from ..runs.observers import RunObserver
from ..runs.report import Summary
from ..runs.request import SegmentRequest
from . import address


def segment(request: SegmentRequest, observer: RunObserver) -> Summary:
    """Segment photos on Ray, as `request.ray` says; otherwise as `runs.segment.segment`.

    Ray starts when the plan has photos for the network, and not before.

    Raises
    ------
    RequestError
        Also when Ray is not installed, nothing answers at its address, or the device and Ray exclude each
        other.
    """
    assert request.ray is not None  # noqa: S101 - the caller decides by it
    if find_spec("ray") is None:
        raise RequestError("--ray needs Ray, which is not installed: pip install 'fcn-cli[ray]'")
    device = request.prediction.inference.device
    if ":" in device:
        raise RequestError(
            f"--device {device}: Ray gives each actor a GPU of its own; with --ray use --device cuda or auto"
        )
    where = address.parse(request.ray)
    if request.dry_run:
        return segmentation.segment(request, observer)
    if where is not None:
        where.check_answers()
    from .driver import RayStage

    return segmentation.segment(request, observer, RayStage)

"""On which devices, and in which precisions, the photos that are done were computed."""

from __future__ import annotations

from collections import Counter

from .resume_plan import ResumePlan


class EarlierExecutions:
    """Counts the photos that are done by device and precision: ``auto`` may stand for others now."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, plan: ResumePlan) -> None:
        """Count the photos of a plan that are done."""
        for (device, precision), count in plan.executions.items():
            self._counts[f"{device} in {precision}"] += count

    def warning(self, device: str, precision: str) -> str | None:
        """Return what to say when this run computes otherwise than earlier ones did; else None."""
        own = f"{device} in {precision}"
        other = {execution: count for execution, count in self._counts.items() if execution != own}
        if not other:
            return None
        counts = ", ".join(f"{count} on {execution}" for execution, count in sorted(other.items()))
        return (
            f"this run computes on {own}; of the masks that are there: {counts}. "
            "They can differ in single pixels; --device and --precision settle it"
        )

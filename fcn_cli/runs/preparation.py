"""Before the work of a run: bring an output directory into the state that the plan begins from."""

from __future__ import annotations

from ..common.output_layout import SETTINGS_FILE
from ..common.wording import counted
from ..outputs.directory import OutputDirectory
from ..outputs.journal import Journal
from ..outputs.output_store import OutputStore
from ..outputs.record import gone
from .observers import RunObserver
from .request import ResolvedRequest
from .resume_plan import Action, ResumePlan
from .run_report import RunReport


def repair(
    output: OutputStore,
    journal: Journal,
    resolved: ResolvedRequest,
    observer: RunObserver,
    *,
    described: bool,
) -> None:
    """Make good what earlier runs or a failing disk left; for the directory's holder.

    Parameters
    ----------
    output
        The output directory.
    journal
        Its journal; damaged lines are removed.
    resolved
        The request. Its settings are written again when they are lost.
    observer
        Is warned.
    described
        Whether the directory's settings file is there.
    """
    if journal.damaged:
        lines = counted(journal.damaged, "damaged line")
        images = "its image" if journal.damaged == 1 else "their images"
        observer.warn(f"{journal.path}: {lines} dropped; {images} will be done again")
    journal.mend()
    if not described and len(journal):
        known = resolved.model.identity
        resolved.settings.save(output, known if len(known) == 64 else None)
        observer.warn(f"{output / SETTINGS_FILE} was missing or damaged: written again")


def bring_up_to_date(plan: ResumePlan, journal: Journal, folder: OutputDirectory, report: RunReport) -> None:
    """Remove photos that are gone, journal first, then their files; note moves, times and colours."""
    records = [step.record for step in plan.of(Action.PRUNE) if step.record is not None]
    journal.append(gone(record) for record in records)
    folder.remove_with_directories(
        name for record in records for name in record.outputs if journal.owner(name) is None
    )
    for record in records:
        report.pruned(record)
    journal.append(step.record for step in plan.steps if step.renewed and step.record is not None)
    names = report.class_names()
    if len(journal) and names is not None and not plan.through_network:
        # Else the network says how many classes there are.
        folder.write_classes(names)

"""An operator's hand on jobs: retry, cancel, and reconcile a job with its rows and its messages.

Invariant: nothing is repaired that is not broken, and each step is a transaction of its own, so that a run which is
cut short has done a part of the work and nothing wrong; doing it again does the rest.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Final, Protocol

from app.completion import SweepReport
from app.job_ports import ConflictError, Drift, JobStore, RepairStore
from app.jobs import find_job

CHUNK_SEGMENTS: Final = 500
"""Segments sent back in one transaction: the job's row is locked for no longer than that."""


class Sweeper(Protocol):
    """What each worker runs now and then."""

    def run(self, job_id: str | None = None, after_seconds: float = ...) -> SweepReport:
        """One sweep, over all jobs or over one. Raises `ProcessorError`."""
        ...


def retry(repairs: RepairStore, store: JobStore, job_id: str) -> int:
    """Send every FAILED segment back to QUEUED, attempts 0, nothing cached before now; how many.

    A cancellation is lifted. The messages are the caller's to send. Raises `NotFoundError`.
    """
    find_job(store, job_id)
    return sum(iter(lambda: repairs.requeue_failed(job_id, CHUNK_SEGMENTS), 0))


def cancel(repairs: RepairStore, store: JobStore, job_id: str) -> int:
    """End the job: its unfinished segments are FAILED, whoever works on them can write nothing; how many.

    Raises `NotFoundError`, or `ConflictError` for a job that is COMPLETED.
    """
    ended = repairs.cancel(job_id)
    if ended is None:
        job = find_job(store, job_id)
        raise ConflictError(f"job {job_id} cannot be cancelled: all its {job.total_segments} segments are COMPLETED")
    return ended


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What was found: jobs that contradicted their rows, and what the sweeps mended."""

    repaired: list[Drift] = field(default_factory=list)
    beyond_repair: list[Drift] = field(default_factory=list)
    """More rows have ended than the job says it has segments: which of the two is wrong cannot be told."""
    swept: SweepReport = field(default_factory=SweepReport)

    @property
    def found_nothing(self) -> bool:
        """Everything was as it should be."""
        return not self.repaired and not self.beyond_repair and self.swept.found_nothing


def reconcile(repairs: RepairStore, sweep: Sweeper, job_id: str | None, after_seconds: float) -> Reconciliation:
    """Mend counters that differ from their rows, then sweep until nothing is left to do.

    `after_seconds`: messages of unfinished segments are sent again when the last one is older than that. Raises
    `ProcessorError`; what was done until then stays done.
    """
    repaired: list[Drift] = []
    beyond_repair: list[Drift] = []
    for drift in repairs.find_drift(job_id):
        if drift.completed_rows + drift.failed_rows > drift.total_segments:
            beyond_repair.append(drift)
        elif repairs.repair(drift.job_id):
            repaired.append(drift)
    return Reconciliation(repaired, beyond_repair, _sum(_sweeps(repairs, sweep, job_id, after_seconds)))


def _sweeps(repairs: RepairStore, sweep: Sweeper, job_id: str | None, after_seconds: float) -> Iterator[SweepReport]:
    """Sweeps until one finds nothing, or each unfinished segment has had its turn."""
    turns = repairs.count_unfinished(job_id)
    while True:
        report = sweep.run(job_id, after_seconds)
        yield report
        taken = report.segments_resent + report.segments_without_span
        turns -= taken
        if report.found_nothing or (taken and turns <= 0):
            return


def _sum(reports: Iterator[SweepReport]) -> SweepReport:
    all_reports = list(reports)
    return SweepReport(*(sum(getattr(report, each.name) for report in all_reports) for each in fields(SweepReport)))

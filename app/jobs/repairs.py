"""An operator's hand on jobs: retry, cancel, and reconcile a job with its rows and its messages.

Invariant: nothing is repaired that is not broken, and each step is a transaction of its own, so that a run which is
cut short has done a part of the work and nothing wrong; doing it again does the rest.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Final, Protocol

from app.core.jobs import ConflictError, Drift, Miscount, Outlook
from app.db.jobs import PostgresJobs
from app.db.repairs import PostgresRepairs
from app.jobs.producer import find_job
from app.outbox.pace import FEWEST_RESENT
from app.outbox.sweep import SweepReport

CHUNK_SEGMENTS: Final = 500
"""Segments sent back in one transaction: the job's row is locked for no longer than that."""
MOST_ON_QUEUE: Final = 5_000
"""Messages on the queue that a reconciliation fills it up to, all jobs' together."""


class Sweeper(Protocol):
    """What each worker runs now and then."""

    def run(self, job_id: str | None = None, after_seconds: float | None = None, limit: int = ...) -> SweepReport:
        """One sweep, over all jobs or over one, of at most `limit` messages. Raises `ProcessorError`."""
        ...


def retry(repairs: PostgresRepairs, store: PostgresJobs, job_id: str) -> int:
    """Send every FAILED segment back to QUEUED, attempts 0, nothing cached before now; how many.

    A cancellation is lifted. The messages are the caller's to send. Raises `NotFoundError`.
    """
    find_job(store, job_id)
    return sum(iter(lambda: repairs.requeue_failed(job_id, CHUNK_SEGMENTS), 0))


def cancel(repairs: PostgresRepairs, store: PostgresJobs, job_id: str) -> int:
    """End the job: its unfinished segments are FAILED, whoever works on them can write nothing; how many.

    Raises `NotFoundError`, or `ConflictError` for a job that is COMPLETED.
    """
    ended = repairs.cancel(job_id)
    if ended is None:
        find_job(store, job_id)
        raise ConflictError(f"job {job_id} cannot be cancelled: all its segments are COMPLETED")
    return ended


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What was found: jobs that contradicted their rows, what waits for what, and what the sweeps repaired."""

    repaired: list[Drift] = field(default_factory=list)
    miscounted: list[Miscount] = field(default_factory=list)
    """Jobs whose `total_segments` are not their rows; an operator knows which of the two is wrong."""
    outlook: Outlook = field(default_factory=Outlook)
    """Of the unfinished segments, before their messages were sent again."""
    swept: SweepReport = field(default_factory=SweepReport)

    @property
    def found_nothing(self) -> bool:
        """Everything was as it should be."""
        return not self.repaired and not self.miscounted and not self.left and self.swept.found_nothing

    @property
    def left(self) -> int:
        """Segments in nobody's hands whose message was not sent again, so as not to flood the queue."""
        return max(0, self.outlook.due - self.swept.segments_resent - self.swept.segments_without_span)

    @property
    def is_complete(self) -> bool:
        """Nothing is left for an operator to do."""
        stuck = any(each.is_stuck for each in self.miscounted)
        return not stuck and not self.left and not self.swept.segments_without_span


def reconcile(
    repairs: PostgresRepairs, sweep: Sweeper, job_id: str | None, after_seconds: float, messages_on_queue: int
) -> Reconciliation:
    """Repair counters that differ from their rows, then sweep until nothing is left to do.

    `after_seconds`: messages of unfinished segments are sent again when the last one is older than that. Nobody can
    tell whose messages the queue holds, so the more it holds the fewer are sent. Raises `ProcessorError`; what was
    done until then stays done.
    """
    repaired = [drift for drift in repairs.find_drift(job_id) if repairs.repair(drift.job_id)]
    outlook = repairs.look_ahead(job_id, after_seconds)
    limit = max(FEWEST_RESENT, MOST_ON_QUEUE - messages_on_queue)
    swept = _sum(_sweeps(sweep, job_id, after_seconds, limit))
    return Reconciliation(repaired, repairs.find_miscounted(job_id), outlook, swept)


def _sweeps(sweep: Sweeper, job_id: str | None, after_seconds: float, limit: int) -> Iterator[SweepReport]:
    """One sweep that sends messages again, and more until there is nothing else to repair."""
    yield sweep.run(job_id, after_seconds, limit)
    while not (report := sweep.run(job_id, after_seconds, 0)).found_nothing:
        yield report


def _sum(reports: Iterator[SweepReport]) -> SweepReport:
    all_reports = list(reports)
    return SweepReport(*(sum(getattr(report, each.name) for report in all_reports) for each in fields(SweepReport)))

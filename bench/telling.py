"""What it costs a worker to tell of its work, measured by itself: the same calls that a batch makes, again and again.

Invariant: processor time, not time on the clock, so that a busy machine disturbs it little. A run of the whole worker
with and without metrics varies by more than these calls take together.
"""

from collections.abc import Callable
from time import process_time
from typing import Final

from app.core.endings import Completed
from app.core.meter import NO_METER, Meter
from app.core.segments import Claimed
from app.worker.counts import Counts

BATCH_SEGMENTS: Final = 10
LEVELS: Final = 4
"""Of a walk over warm pages."""
BATCHES: Final = 20_000
REPEATS: Final = 5


def measure() -> dict[str, float]:
    """Microseconds of processor time a segment: told to nobody, and kept."""
    return {"told_to_nobody_us": _measure(NO_METER), "kept_us": _measure(Counts())}


def _measure(meter: Meter) -> float:
    endings = [Completed(Claimed(str(at), "", "", "", "", 0, 1, 1, 0, 0), "") for at in range(BATCH_SEGMENTS)]
    task_ids = frozenset(ending.claim.task_id for ending in endings)

    def batch() -> None:
        for step in ("claim", "walk", "settle", "acknowledge"):
            with meter.step(step):
                pass
        for service in ("SQS", "PostgreSQL", "PostgreSQL", "SQS"):
            with meter.call(service):
                pass
        for _ in range(LEVELS):
            meter.pages("memory", BATCH_SEGMENTS)
        meter.settled(endings, task_ids)
        meter.lost(0)

    return min(_seconds(batch) for _ in range(REPEATS)) / BATCHES / BATCH_SEGMENTS * 1e6


def _seconds(work: Callable[[], None]) -> float:
    began = process_time()
    for _ in range(BATCHES):
        work()
    return process_time() - began

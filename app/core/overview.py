"""What a person sees of jobs, segments and workers at a glance.

Invariant: values only; times carry a zone and are the database's.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Self

from app.core.jobs import Job


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a job goes: segments that ended, in how many seconds."""

    ended: int
    seconds: float

    @classmethod
    def of(cls, job: Job) -> Self:
        """From its creation to its last change. Its row alone tells it: counting the rows of many jobs would not do."""
        ended = job.completed_segments + job.failed_segments
        return cls(ended, (job.updated_at - job.created_at).total_seconds())

    @property
    def per_second(self) -> float | None:
        """None when nothing has ended yet."""
        return self.ended / self.seconds if self.ended and self.seconds > 0 else None

    def seconds_left(self, job: Job) -> float | None:
        """Until the job ends if it goes on like this; None when it has ended, or nobody can tell."""
        per_second = self.per_second
        return job.open_segments / per_second if per_second and not job.has_ended else None


class SeenWorker(NamedTuple):
    """A worker by the leases that it holds, or held when it was heard of last."""

    name: str
    segments: int
    jobs: int
    since: datetime
    """When it claimed the first of those."""
    until: datetime
    """When the last of its leases ends, or ended."""
    is_alive: bool
    """The lease runs on."""

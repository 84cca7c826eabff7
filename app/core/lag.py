"""How far the work is behind, as PostgreSQL tells it: values only."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OldestJob:
    """The job that has been unfinished for longest; a cancelled one is finished."""

    job_id: str
    manifestation_id: str
    age_seconds: float


@dataclass(frozen=True, slots=True)
class Lag:
    """`oldest_job` None: no job is unfinished. `unsent_seconds`: for how long the oldest completion waits for its
    message, 0 when none does.
    """

    oldest_job: OldestJob | None = None
    unsent_completions: int = 0
    unsent_seconds: float = 0.0

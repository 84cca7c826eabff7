"""Figures of a run: how long nothing moved and why, who took work over from whom, what was received again."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.chaos.crew import Start
from tests.chaos.faults import Happened
from tests.chaos.verdict import read
from tests.support.engine import Engine
from tests.support.killer import PREFIX

LEASE_SECONDS: Final = 10.0

ARRIVALS: Final = f"""
SELECT extract(epoch FROM created_at)::float8 AS at, count(*) AS n FROM segment_task
WHERE NOT starts_with(segment_id, '{PREFIX}') GROUP BY 1
"""
ENDINGS: Final = f"""
SELECT extract(epoch FROM at)::float8 AS at, count(*) AS n FROM chaos_audit JOIN segment_task USING (task_id)
WHERE became IN ('COMPLETED', 'FAILED') AND NOT starts_with(segment_id, '{PREFIX}') GROUP BY 1
"""
TAKEOVERS: Final = """
SELECT extract(epoch FROM at)::float8 AS at, old_worker, new_worker, new_attempts > old_attempts AS charged
FROM chaos_audit WHERE was = 'IN_PROGRESS' AND became = 'IN_PROGRESS'
"""
RETRIES: Final = """
SELECT regexp_replace(left(error, 120), '[0-9]+', 'n', 'g') AS why, count(*) AS n
FROM chaos_audit WHERE became = 'RETRYING' GROUP BY 1 ORDER BY 2 DESC
"""
ATTEMPTS: Final = "SELECT attempts, count(*) AS n FROM segment_task GROUP BY 1 ORDER BY 1"
GIVEN_BACK: Final = "SELECT count(*) AS n FROM chaos_audit WHERE was = 'IN_PROGRESS' AND became = 'QUEUED'"
RESENT: Final = "SELECT coalesce(sum(send_count), 0) AS n FROM segment_task"


@dataclass(frozen=True, slots=True)
class Stall:
    """Nothing ended between the two moments although `waiting` segments wanted to; killers do not count."""

    began: float
    ended: float
    waiting: int

    @property
    def seconds(self) -> float:
        """How long."""
        return self.ended - self.began


def stalls(engine: Engine) -> list[Stall]:
    """The longest first."""
    moves = [(row.at, int(row.n)) for row in read(engine, ARRIVALS)]
    moves += [(row.at, -int(row.n)) for row in read(engine, ENDINGS)]
    waiting, since, found = 0, 0.0, []
    for at, change in sorted(moves):
        if change < 0:
            found.append(Stall(since, at, waiting))
            since = at
        elif not waiting:
            since = at
        waiting += change
    return sorted(found, key=lambda stall: -stall.seconds)


def during(stall: Stall, happened: Sequence[Happened]) -> str:
    """The faults that a stall falls into, with when they were, counted from its beginning."""
    return ", ".join(
        f"{each.fault.kind} {each.began - stall.began:+.0f}..{each.ended - stall.began:+.0f}"
        for each in sorted(happened, key=lambda each: each.began)
        if each.ended > stall.began - LEASE_SECONDS and each.began < stall.ended and each.fault.kind.split()[0] != "-"
    )


def takeovers(engine: Engine, starts: Sequence[Start], *, charged: bool) -> Counter[str]:
    """Why leases ran out and somebody else, or the same worker again, claimed the segment."""
    by_pid = {start.process.pid: start for start in starts}
    killed = {start.process.pid for start in starts if start.met_a_killer}
    return Counter(_cause(row, by_pid, killed) for row in read(engine, TAKEOVERS) if row.charged is charged)


def _cause(row: Any, by_pid: dict[int, Start], killed: set[int]) -> str:
    start = by_pid.get(_pid(row.old_worker))
    if start is None:
        return "from an unknown worker"
    if start.process.pid in killed:
        return "from one that a killer ended"
    if start.ended is not None and start.ended <= row.at + 0.5:
        return "from a dead worker"
    if any(told == "SIGSTOP" and at <= row.at for at, told in start.asked):
        return "from a frozen worker"
    if start.was_told("SIGTERM"):
        return "from a stopping worker"
    return "from itself" if row.old_worker == row.new_worker else "from a living worker"


def _pid(worker: str | None) -> int:
    parts = (worker or "").rsplit("-", 2)
    return int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else 0

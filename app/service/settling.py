"""Writes how segments end, and remembers what could not be written yet.

Invariant: an ending is reported only when PostgreSQL has it. What it could not take is owed: written when it can be
again, as long as the claim still stands, and never charged to the segment (docs/formats.md, "Finish, fail, give back").
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final, assert_never

from app.core.endings import Completed, Ending, Failed, GivenBack, Postponed, Settled
from app.core.meter import NO_METER, Meter
from app.core.outcomes import Dead, Done, Hide, Outcome
from app.core.ports import Announcer, ResultStore
from app.core.segments import JUST_AFTER_SECONDS, Claimed
from app.errors import DataError, OutageError, ProcessorError, StatementTimeoutError, TransientError
from app.logs import fields
from app.service.charging import claim_fields
from app.threads.gate import Gate

log = logging.getLogger("app.tasks")
"""The service speaks with one name, whatever its parts."""

OUTAGE_SECONDS: Final = 5.0
"""How soon a message that met an outage, or was given back, is visible again."""
REFUSED_SECONDS: Final = 900.0
"""How long a segment waits whose every ending PostgreSQL refuses."""
MAX_OWED_BYTES: Final = 16_000_000
"""Of results that wait for PostgreSQL; beyond that segments are given back and walked again."""

AROUND_A_LOCK_SECONDS: Final = 15.0
"""How long one try may go on giving back job by job what is owed."""

type Charge = Callable[[Claimed, Exception], Ending]
"""What a failed attempt means for its segment."""


class Settler:
    """Settles endings in batches; each has an outcome of its own. Safe to share between threads."""

    def __init__(self, results: ResultStore, announcer: Announcer, gate: Gate, meter: Meter = NO_METER) -> None:
        self._results = results
        self._announcer = announcer
        self._gate = gate
        self._meter = meter
        self._owed: list[Ending] = []
        self._owed_bytes = 0
        self._lock = threading.Lock()

    def settle(self, endings: Sequence[Ending], charge: Charge) -> dict[str, Outcome]:
        """Commit the endings; an outcome a task id that was still ours. `charge`: for a result that is refused."""
        if not endings:
            return {}
        try:
            settled = self._write(endings)
        except OutageError as error:
            self._owe(endings)  # before a probe may look for what is owed
            self._gate.close(error.service, error.reason)
            return _all(endings, Hide(OUTAGE_SECONDS, str(error)))
        except DataError as error:
            return self._settle_each(endings, charge, error)
        except StatementTimeoutError as error:
            return self._settle_around_a_lock(endings, charge, error)
        except TransientError as error:
            log.warning("%d endings could not be stored and are stored later: %s", len(endings), error)
            self._owe(endings)
            return _all(endings, Hide(OUTAGE_SECONDS, str(error)))
        return {ending.claim.task_id: _after(ending) for ending in endings if ending.claim.task_id in settled.task_ids}

    def give_back(self, claims: Sequence[Claimed]) -> frozenset[str]:
        """Return segments that will not be worked on, no attempt charged; the tasks that were still ours.

        Raises `ProcessorError`.
        """
        return self._commit([GivenBack(claim) for claim in claims]).task_ids

    @property
    def owes(self) -> bool:
        """Whether something could not be written yet."""
        return bool(self._owed)

    def settle_owed(self) -> None:
        """Write what is owed: the very writes that failed. Raises `OutageError` or `TransientError` when they fail.

        What somebody has locked is no failure: it is owed on, without its result, and the rest is given back.
        """
        with self._lock:
            owed, self._owed, self._owed_bytes = self._owed, [], 0
        if not owed:
            return
        try:
            self._write(owed)
        except (DataError, StatementTimeoutError):
            self._give_back_around_a_lock([GivenBack(ending.claim) for ending in owed])
        except ProcessorError:
            self._owe(owed)
            raise

    def _give_back_around_a_lock(self, endings: Sequence[Ending]) -> None:
        deadline = time.monotonic() + AROUND_A_LOCK_SECONDS
        jobs = _by_job(endings)
        while jobs:
            job = jobs.pop()
            try:
                if time.monotonic() < deadline:
                    self._commit(job)
                    continue
            except StatementTimeoutError:
                pass
            except ProcessorError:
                self._owe([ending for left in (job, *jobs) for ending in left])
                raise
            self._owe(job)

    def _write(self, endings: Sequence[Ending]) -> Settled:
        settled = self._commit(endings)
        self._announcer.submit(settled.announcements)
        for surplus in settled.surpluses:
            log.error(
                "Job %s has ended with %d segments, but its producer counted %d; correct it with:"
                " UPDATE root_job SET total_segments = %d WHERE job_id = '%s'",
                surplus.job_id,
                surplus.rows,
                surplus.total_segments,
                surplus.rows,
                surplus.job_id,
                extra=fields(job_id=surplus.job_id),
            )
        return settled

    def _commit(self, endings: Sequence[Ending]) -> Settled:
        settled = self._results.settle(endings)
        self._meter.settled(endings, settled.task_ids)
        return settled

    def _owe(self, endings: Sequence[Ending]) -> None:
        with self._lock:
            for ending in endings:
                self._owed_bytes += len(ending.result_json) if isinstance(ending, Completed) else 0
                is_affordable = self._owed_bytes <= MAX_OWED_BYTES
                self._owed.append(ending if is_affordable else GivenBack(ending.claim))

    def _settle_each(self, endings: Sequence[Ending], charge: Charge, error: DataError) -> dict[str, Outcome]:
        """Row by row, so that one refused value spoils only its own segment, which fails with it."""
        if len(endings) > 1:
            return _merged(self.settle([ending], charge) for ending in endings)
        claim = endings[0].claim
        if isinstance(endings[0], Completed):
            return self.settle([charge(claim, error)], charge)
        log.error(
            "Segment %s of job %s can't be settled: %s",
            claim.segment_id,
            claim.job_id,
            error,
            extra=claim_fields(claim),
        )
        return {claim.task_id: Hide(REFUSED_SECONDS, str(error))}

    def _settle_around_a_lock(
        self, endings: Sequence[Ending], charge: Charge, error: StatementTimeoutError
    ) -> dict[str, Outcome]:
        """Job by job, so that the others' are stored; what is locked is given back, which needs no job's lock."""
        jobs = _by_job(endings)
        if len(jobs) > 1:
            return _merged(self.settle(job, charge) for job in jobs)
        if not all(isinstance(ending, GivenBack) for ending in endings):
            log.warning(
                "Job %s is locked by somebody, %d of its segments are given back: %s",
                endings[0].claim.job_id,
                len(endings),
                error,
                extra=fields(job_id=endings[0].claim.job_id),
            )
            return self.settle([GivenBack(ending.claim) for ending in endings], charge)
        if len(endings) > 1:
            return _merged(self.settle([ending], charge) for ending in endings)
        self._owe(endings)
        return _all(endings, Hide(OUTAGE_SECONDS, str(error)))


def _by_job(endings: Sequence[Ending]) -> list[list[Ending]]:
    job_of = attrgetter("claim.job_id")
    return [list(group) for _, group in groupby(sorted(endings, key=job_of), job_of)]


def _all(endings: Sequence[Ending], outcome: Outcome) -> dict[str, Outcome]:
    return {ending.claim.task_id: outcome for ending in endings}


def _merged(parts: Iterable[Mapping[str, Outcome]]) -> dict[str, Outcome]:
    return {task_id: outcome for part in parts for task_id, outcome in part.items()}


def _after(ending: Ending) -> Outcome:
    match ending:
        case Completed():
            return Done()
        case Failed():
            return Dead(ending.error, recorded=True)
        case Postponed():
            return Hide(ending.seconds + JUST_AFTER_SECONDS, ending.error)
        case GivenBack():
            return Hide(OUTAGE_SECONDS, "given back")
    assert_never(ending)

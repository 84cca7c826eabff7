"""The service: claim, relate, settle; an outcome a message.

Invariant: a message's outcome is what PostgreSQL has committed, never what was intended. A segment whose claim has
been taken over is left alone: nothing written, nothing counted, no SQS call (shared/spec/lifecycle.md).
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, assert_never

from app.errors import DataError, OutageError, PermanentError, ProcessorError, TransientError
from app.outage import Gate
from app.outcomes import Dead, Done, Hide, Leave, Outcome
from app.ports import (
    JUST_AFTER_SECONDS,
    Abandoned,
    AlreadyCompleted,
    AlreadyFailed,
    Announcer,
    ClaimAnswer,
    Claimed,
    ClaimStore,
    Completed,
    Ending,
    Failed,
    ForeignManifestation,
    GivenBack,
    HeldElsewhere,
    JobCancelled,
    Leases,
    Postponed,
    Relate,
    ResultStore,
    SegmentRequest,
    Unknown,
)
from app.traversal import Start

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS: Final = 5.0
SLOWEST_RETRY_SECONDS: Final = 900.0
OUTAGE_SECONDS: Final = 5.0
"""How soon a message that met an outage is visible again."""
UNKNOWN_FOR_SECONDS: Final = 120.0
"""How long after its sending a message may wait for its producer to commit the row."""
FIRST_UNKNOWN_SECONDS: Final = 5.0
ONE_BY_ONE_SECONDS: Final = 120.0
"""How long one batch may go on segment by segment before the rest is given back."""
MAX_ERROR_CHARS: Final = 2_000

type Key = tuple[str, str, str]


def retry_seconds(attempts: int, jitter: Callable[[], float] = random.random) -> float:
    """Exponential backoff after attempt number `attempts` (1 is the first), half of it jitter; at most 15 min."""
    longest = min(FIRST_RETRY_SECONDS * 2.0 ** min(attempts - 1, 30), SLOWEST_RETRY_SECONDS)
    return longest * (0.5 + jitter() / 2)


def unknown_seconds(age_seconds: float) -> float:
    """How long to hide a message without a row: 5 s and then doubling (5, 10, 20, ...), told from its age alone."""
    return FIRST_UNKNOWN_SECONDS + max(age_seconds, 0.0)


class TaskService:
    """Deals with segments in batches; each has an ending of its own. Safe to share between threads."""

    def __init__(
        self,
        claims: ClaimStore,
        results: ResultStore,
        relate: Relate,
        leases: Leases,
        announcer: Announcer,
        gate: Gate,
        *,
        max_attempts: int,
        lease_seconds: float,
    ) -> None:
        """`lease_seconds`: how long a claim holds, counted from the receive of its message."""
        self._claims = claims
        self._results = results
        self._relate_all = relate
        self._leases = leases
        self._announcer = announcer
        self._gate = gate
        self._max_attempts = max_attempts
        self._lease_seconds = lease_seconds
        self._owed: list[Claimed] = []
        self._owed_lock = threading.Lock()

    def process_segment_task(
        self, job_id: str, manifestation_id: str, segment_id: str, start: int, end: int
    ) -> Outcome:
        """One segment by itself, by the same road as a batch."""
        return self.process([SegmentRequest(str(job_id), manifestation_id, segment_id, start, end, sent_at_ms=0)])[0]

    def process(self, requests: Sequence[SegmentRequest], age_seconds: float = 0.0) -> list[Outcome]:
        """An outcome a request, in order; `age_seconds` is how long ago they were received.

        Requests for the same segment share one claim and its outcome. A failing service or segment is an outcome
        too; whatever is raised is a bug.
        """
        groups = _group(requests)
        try:
            answers = self._try_claim_segment_task(list(groups.values()), age_seconds)
        except ProcessorError as error:
            if isinstance(error, DataError) and len(groups) > 1:
                return self._process_each(groups, requests, age_seconds)
            return [self._not_claimed(error)] * len(requests)
        outcomes: dict[Key, Outcome] = {}
        claims: dict[Key, Claimed] = {}
        abandoned: list[Ending] = []
        for (key, request), answer in zip(groups.items(), answers, strict=True):
            match answer:
                case Claimed():
                    claims[key] = answer
                case Abandoned(claim):
                    claims[key] = claim
                    abandoned.append(self._give_up(claim))
                case _:
                    outcomes[key] = _without_claim(request, answer)
        ended = self._end(list(claims.values()), abandoned)
        for key, claim in claims.items():
            outcomes[key] = ended.get(claim.task_id) or _lost(claim)
        return [outcomes[_key(request)] for request in requests]

    def _process_each(
        self, groups: Mapping[Key, SegmentRequest], requests: Sequence[SegmentRequest], age_seconds: float
    ) -> list[Outcome]:
        """One by one, so that a value which PostgreSQL refuses spoils only its own message."""
        began = time.monotonic()
        outcomes = {
            key: self.process([request], age_seconds + time.monotonic() - began)[0] for key, request in groups.items()
        }
        return [outcomes[_key(request)] for request in requests]

    def give_back(self, claims: Sequence[Claimed]) -> frozenset[str]:
        """Return segments that will not be worked on, no attempt charged; the tasks that were still ours.

        Raises `OutageError`.
        """
        return self._results.settle([GivenBack(claim) for claim in claims]).task_ids

    def settle_owed(self) -> None:
        """Give back what could not be given back while PostgreSQL was down. Raises `OutageError`."""
        with self._owed_lock:
            owed, self._owed = self._owed, []
        try:
            if owed:
                self.give_back(owed)
        except ProcessorError:
            self._owe(owed)
            raise

    def _owe(self, claims: Sequence[Claimed]) -> None:
        with self._owed_lock:
            self._owed += claims

    def _try_claim_segment_task(
        self, requests: Sequence[SegmentRequest], age_seconds: float = 0.0
    ) -> list[ClaimAnswer]:
        """Claim the rows; an answer a request. Raises what a `ClaimStore` does, for all of them."""
        for request in requests:
            log.info("Attempting to claim segment task %s", request.segment_id)
        lease_seconds = self._lease_seconds - age_seconds
        if lease_seconds <= 0:
            raise TransientError("the messages waited too long to be claimed: their visibility is about to end")
        answers = self._claims.claim(requests, lease_seconds)
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(answer, Claimed):
                _say_claimed(request, answer)
        return answers

    def _not_claimed(self, error: ProcessorError) -> Outcome:
        if isinstance(error, OutageError):
            self._gate.close(error.service, error.reason)
            return Hide(OUTAGE_SECONDS, str(error))
        if isinstance(error, DataError):
            log.error("A message can't be looked up: %s", error)
            return Dead(str(error), recorded=False)
        log.warning("Nothing was claimed, the messages come back later: %s", error)
        return Hide(retry_seconds(1), str(error))

    def _end(self, claims: Sequence[Claimed], abandoned: Sequence[Ending]) -> dict[str, Outcome]:
        """Work on the claims and settle them; an outcome a task id, none for those that were lost."""
        if not claims:
            return {}
        self._leases.hold(claims)
        try:
            given_up = {ending.claim.task_id for ending in abandoned}
            endings = self._relate([claim for claim in claims if claim.task_id not in given_up])
            return self._settle([*abandoned, *endings])
        finally:
            self._leases.release(claims)

    def _relate(self, claims: Sequence[Claimed]) -> list[Ending]:
        """Walk the graph for all together; when that fails, for each alone, so that only the offender is charged."""
        held = [claim for claim in claims if not self._leases.is_lost(claim)]
        if not held:
            return []
        for claim in held:
            log.info("Processing segment %s for job %s", claim.segment_id, claim.job_id)
        try:
            answers = self._relate_all([_start(claim) for claim in held])
        except OutageError as error:
            self._gate.close(error.service, error.reason)
            return [GivenBack(claim) for claim in held]
        except Exception as error:  # noqa: BLE001  (the edge: a bug fails its segment, not the worker)
            if len(held) == 1:
                return [self._charge(held[0], error)]
            return self._relate_each(held)
        return [
            self._charge(claim, answer) if isinstance(answer, PermanentError) else Completed(claim, answer)
            for claim, answer in zip(held, answers, strict=True)
        ]

    def _relate_each(self, claims: Sequence[Claimed]) -> list[Ending]:
        endings: list[Ending] = []
        deadline = time.monotonic() + ONE_BY_ONE_SECONDS
        for claim in claims:
            goes_on = self._gate.is_open and time.monotonic() < deadline
            endings += self._relate([claim]) if goes_on else [GivenBack(claim)]
        return endings

    def _give_up(self, claim: Claimed) -> Ending:
        text = f"abandoned {claim.attempts} times: its workers died on it"
        log.error("Segment %s of job %s has failed: %s", claim.segment_id, claim.job_id, text)
        return Failed(claim, text)

    def _charge(self, claim: Claimed, error: Exception) -> Ending:
        """What a failed attempt means for its segment."""
        text = _printable(error)
        if not isinstance(error, ProcessorError):
            log.error("Segment %s of job %s met a bug", claim.segment_id, claim.job_id, exc_info=error)
        if isinstance(error, PermanentError):
            log.error("Segment %s of job %s has failed: %s", claim.segment_id, claim.job_id, text)
            return Failed(claim, text)
        if claim.attempts >= self._max_attempts:
            log.error(
                "Segment %s of job %s has failed %d times: %s",
                claim.segment_id,
                claim.job_id,
                claim.attempts,
                text,
            )
            return Failed(claim, f"failed {claim.attempts} times, the last time with: {text}")
        seconds = retry_seconds(claim.attempts)
        log.warning(
            "Segment %s of job %s failed, attempt %d of %d, again in %.0f s: %s",
            claim.segment_id,
            claim.job_id,
            claim.attempts,
            self._max_attempts,
            seconds,
            text,
        )
        return Postponed(claim, text, seconds)

    def _settle(self, endings: Sequence[Ending]) -> dict[str, Outcome]:
        """Commit the endings; an outcome a task id that was still ours."""
        if not endings:
            return {}
        try:
            settled = self._results.settle(endings)
        except OutageError as error:
            self._owe([ending.claim for ending in endings])  # before a probe may look for what is owed
            self._gate.close(error.service, error.reason)
            return {ending.claim.task_id: Hide(OUTAGE_SECONDS, str(error)) for ending in endings}
        except DataError as error:
            return self._settle_each(endings, error)
        except TransientError as error:
            log.warning("%d results could not be stored, their segments come back: %s", len(endings), error)
            return {ending.claim.task_id: Hide(self._lease_seconds, str(error)) for ending in endings}
        self._announcer.submit(settled.announcements)
        return {ending.claim.task_id: _after(ending) for ending in endings if ending.claim.task_id in settled.task_ids}

    def _settle_each(self, endings: Sequence[Ending], error: DataError) -> dict[str, Outcome]:
        """Row by row, so that one refused value spoils only its own segment, which fails with it."""
        if len(endings) > 1:
            return {task: outcome for ending in endings for task, outcome in self._settle([ending]).items()}
        claim = endings[0].claim
        if isinstance(endings[0], Completed):
            return self._settle([self._charge(claim, error)])
        log.error("Segment %s of job %s can't be settled: %s", claim.segment_id, claim.job_id, error)
        return {claim.task_id: Hide(SLOWEST_RETRY_SECONDS, str(error))}


def _key(request: SegmentRequest) -> Key:
    return request.job_id, request.segment_id, request.manifestation_id


def _group(requests: Sequence[SegmentRequest]) -> dict[Key, SegmentRequest]:
    """The youngest request of each segment stands for all of its duplicates: it alone may be a redrive."""
    groups: dict[Key, SegmentRequest] = {}
    for request in requests:
        known = groups.get(_key(request))
        if known is None or request.sent_at_ms > known.sent_at_ms:
            groups[_key(request)] = request
    return groups


def _start(claim: Claimed) -> Start:
    return Start(claim.manifestation_id, claim.start, claim.end, claim.fresh_since_us, claim.read_at_us)


def _say_claimed(request: SegmentRequest, claim: Claimed) -> None:
    log.info("Successfully claimed segment task %s", request.segment_id)
    if (claim.start, claim.end) != (request.start, request.end):
        log.warning(
            "Segment %s of job %s: the message says [%d, %d), the row [%d, %d); the row's span counts",
            request.segment_id,
            request.job_id,
            request.start,
            request.end,
            claim.start,
            claim.end,
        )


def _without_claim(request: SegmentRequest, answer: ClaimAnswer) -> Outcome:
    """The outcome of an answer that gives no work; each with the one log line that names ids and reason."""
    match answer:
        case AlreadyCompleted():
            _say(logging.INFO, request, "is already completed, this message is a duplicate")
            return Done("already completed")
        case JobCancelled():
            _say(logging.INFO, request, "belongs to a cancelled job")
            return Done("cancelled")
        case AlreadyFailed(error):
            _say(logging.WARNING, request, f"has already failed: {error}")
            return Dead(error, recorded=True)
        case HeldElsewhere(seconds):
            _say(logging.INFO, request, f"is held, back in {seconds:.1f} s")
            return Hide(seconds, "held")
        case Unknown(age_seconds) if age_seconds < UNKNOWN_FOR_SECONDS:
            seconds = unknown_seconds(age_seconds)
            _say(logging.INFO, request, f"has no row yet, back in {seconds:.0f} s")
            return Hide(seconds, "no row yet")
        case Unknown(age_seconds):
            reason = f"no job {request.job_id} with segment {request.segment_id!r} exists"
            _say(logging.ERROR, request, f"is unknown {age_seconds:.0f} s after its message was sent")
            return Dead(reason, recorded=False)
        case ForeignManifestation(manifestation_id):
            reason = f"manifestation_id: the job belongs to {manifestation_id!r}, not to {request.manifestation_id!r}"
            _say(logging.ERROR, request, f"is poison: {reason}")
            return Dead(reason, recorded=False)
        case Claimed() | Abandoned():
            raise AssertionError("claims are worked on")
    assert_never(answer)


def _say(level: int, request: SegmentRequest, what: str) -> None:
    log.log(level, "Segment %s of job %s %s", request.segment_id, request.job_id, what)


def _lost(claim: Claimed) -> Outcome:
    log.warning(
        "The claim on segment %s of job %s is lost: another worker has it, nothing was written",
        claim.segment_id,
        claim.job_id,
    )
    return Leave("the claim is lost")


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


def _printable(error: Exception) -> str:
    """Short, and without the characters that PostgreSQL refuses."""
    text = str(error) if isinstance(error, ProcessorError) else f"{type(error).__name__}: {error}"
    return text.replace("\x00", "\\x00").encode("utf-8", "replace").decode()[:MAX_ERROR_CHARS]

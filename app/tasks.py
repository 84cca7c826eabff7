"""The service: claim, relate, settle; an outcome a message.

Invariant: a message's outcome is what PostgreSQL has committed, never what was intended. A segment whose claim has
been taken over is left alone: nothing written, nothing counted, no SQS call (shared/spec/lifecycle.md).
"""

import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, assert_never
from uuid import uuid4

from app.budget import ByteBudget
from app.errors import (
    DataError,
    OutageError,
    PermanentError,
    ProcessorError,
    StatementTimeoutError,
    TransientError,
)
from app.logs import fields
from app.outage import Gate
from app.outcomes import Dead, Done, Hide, Leave, Outcome
from app.ports import (
    Abandoned,
    AlreadyCompleted,
    AlreadyFailed,
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
    Related,
    SegmentRequest,
    Suspect,
    Unknown,
)
from app.room import Room
from app.settling import OUTAGE_SECONDS, Settler
from app.traversal import Start

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS: Final = 5.0
SLOWEST_RETRY_SECONDS: Final = 900.0
UNKNOWN_FOR_SECONDS: Final = 120.0
"""How long after its sending a message may wait for its producer to commit the row."""
FIRST_UNKNOWN_SECONDS: Final = 5.0
LOCKED_SECONDS: Final = 10.0
"""How long a message waits whose row somebody has locked."""
ONE_BY_ONE_SECONDS: Final = 120.0
"""How long one batch may go on segment by segment before the rest is given back."""
CATCH_UP_SECONDS: Final = 5.0
"""How often what is owed is tried again while PostgreSQL answers."""
CATCH_UP_LEASE_SECONDS: Final = 5.0
"""Of a claim that is made again only to be given back."""
MAX_UNANSWERED: Final = 16
"""Claims of so many batches are asked for again when PostgreSQL is back; one a lane."""
MAX_CHUNK_BYTES: Final = 1_000_000
"""Of results that are made, and stored, together."""
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
        settler: Settler,
        relate: Relate,
        leases: Leases,
        gate: Gate,
        room: Room,
        budget: ByteBudget,
        *,
        max_attempts: int,
        lease_seconds: float,
    ) -> None:
        """`budget`: of the results that are made and not stored yet. `lease_seconds`: from the receive of a message."""
        self._claims = claims
        self._settler = settler
        self._relate_all = relate
        self._leases = leases
        self._gate = gate
        self._room = room
        self._budget = budget
        self._max_attempts = max_attempts
        self._lease_seconds = lease_seconds
        self._unanswered: deque[tuple[Sequence[SegmentRequest], Sequence[str]]] = deque(maxlen=MAX_UNANSWERED)
        self._caught_up_at = time.monotonic()

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
        received_at = time.monotonic() - age_seconds
        self._catch_up_now_and_then()
        groups = _group(requests)
        with self._room.shared():
            outcomes, suspects = self._process_together(groups, received_at)
        if suspects:
            with self._room.alone():
                for key in suspects:
                    outcomes |= self._process_alone(key, groups[key], received_at)
        return [outcomes[_key(request)] for request in requests]

    def give_back(self, claims: Sequence[Claimed]) -> frozenset[str]:
        """Return segments that will not be worked on, no attempt charged; the tasks that were still ours.

        Raises `ProcessorError`.
        """
        return self._settler.give_back(claims)

    def catch_up(self) -> None:
        """Do what PostgreSQL could not take, as a proof that it takes a batch again. Raises `ProcessorError` if not.

        Endings are written; a claim that was not answered is asked for again, and what it gives is given back.
        """
        self._settler.settle_owed()
        while self._unanswered:
            requests, tokens = self._unanswered[0]
            answers = self._claims.claim(requests, tokens, CATCH_UP_LEASE_SECONDS)
            self._settler.give_back([answer for answer in answers if isinstance(answer, Claimed)])
            with suppress(IndexError):  # another thread may have caught up with it
                self._unanswered.popleft()

    def _catch_up_now_and_then(self) -> None:
        """What a lock has kept from being written is tried again beside the work; after an outage the probe does it."""
        now = time.monotonic()
        if not self._settler.owes or not self._gate.is_open or now - self._caught_up_at < CATCH_UP_SECONDS:
            return
        self._caught_up_at = now
        try:
            self._settler.settle_owed()
        except ProcessorError as error:
            log.info("What is owed can't be stored yet: %s", error)

    def _process_together(
        self, groups: Mapping[Key, SegmentRequest], received_at: float
    ) -> tuple[dict[Key, Outcome], list[Key]]:
        """Outcomes, and the suspects, which have none yet."""
        try:
            answers = self._try_claim_segment_task(list(groups.values()), received_at)
        except ProcessorError as error:
            if isinstance(error, DataError) and len(groups) > 1:
                return self._process_each(groups, received_at)
            return dict.fromkeys(groups, self._not_claimed(error)), []
        answered = dict(zip(groups, answers, strict=True))
        suspects = [key for key, answer in answered.items() if isinstance(answer, Suspect)]
        without = {key: answer for key, answer in answered.items() if not isinstance(answer, Suspect)}
        return self._end(groups, without), suspects

    def _process_each(
        self, groups: Mapping[Key, SegmentRequest], received_at: float
    ) -> tuple[dict[Key, Outcome], list[Key]]:
        """One by one, so that a value which PostgreSQL refuses spoils only its own message."""
        outcomes: dict[Key, Outcome] = {}
        suspects: list[Key] = []
        for key, request in groups.items():
            its_outcomes, its_suspects = self._process_together({key: request}, received_at)
            outcomes |= its_outcomes
            suspects += its_suspects
        return outcomes, suspects

    def _process_alone(self, key: Key, request: SegmentRequest, received_at: float) -> dict[Key, Outcome]:
        """A suspect, while this process works on nothing else: if it dies now, it was this segment."""
        if not self._gate.is_open:
            return {key: Hide(OUTAGE_SECONDS, "a service is down")}
        _say(logging.INFO, request, "is worked on alone: its last run left no ending")
        try:
            (answer,) = self._try_claim_segment_task([request], received_at, alone=True)
        except ProcessorError as error:
            return {key: self._not_claimed(error)}
        return self._end({key: request}, {key: answer})

    def _try_claim_segment_task(
        self, requests: Sequence[SegmentRequest], received_at: float, *, alone: bool = False
    ) -> list[ClaimAnswer]:
        """Claim the rows; an answer a request. Raises what a `ClaimStore` does, for all of them."""
        for request in requests:
            log.info(
                "Attempting to claim segment task %s",
                request.segment_id,
                extra=fields(job_id=request.job_id, segment_id=request.segment_id),
            )
        answers = self._claim(requests, [str(uuid4()) for _ in requests], received_at, alone=alone)
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(answer, Claimed):
                _say_claimed(request, answer)
        return answers

    def _claim(
        self, requests: Sequence[SegmentRequest], tokens: Sequence[str], received_at: float, *, alone: bool
    ) -> list[ClaimAnswer]:
        """All together; where a locked row does not let them, job by job and then row by row."""
        lease_seconds = received_at + self._lease_seconds - time.monotonic()
        if lease_seconds <= 0:
            raise TransientError("the messages waited too long to be claimed: their visibility is about to end")
        try:
            return self._claims.claim(requests, tokens, lease_seconds, alone=alone)
        except OutageError:
            self._unanswered.append((requests, tokens))
            raise
        except StatementTimeoutError as error:
            if len(requests) == 1:
                _say(logging.WARNING, requests[0], f"is locked by somebody: {error}")
                return [HeldElsewhere(LOCKED_SECONDS)]
        answers: dict[str, ClaimAnswer] = {}
        for part in _parts(requests, tokens):
            answers |= self._claim_part(part, received_at, alone=alone)
        return [answers[token] for token in tokens]

    def _claim_part(
        self, part: Mapping[str, SegmentRequest], received_at: float, *, alone: bool
    ) -> dict[str, ClaimAnswer]:
        """By token. What fails here comes back and is told then: the other parts may have been claimed already."""
        try:
            answers = self._claim(list(part.values()), list(part), received_at, alone=alone)
        except ProcessorError as error:
            log.info("A part of a batch was not claimed and comes back: %s", error)
            return dict.fromkeys(part, HeldElsewhere(LOCKED_SECONDS))
        return dict(zip(part, answers, strict=True))

    def _not_claimed(self, error: ProcessorError) -> Outcome:
        if isinstance(error, OutageError):
            self._gate.close(error.service, error.reason)
            return Hide(OUTAGE_SECONDS, str(error))
        if isinstance(error, DataError):
            log.error("A message can't be looked up: %s", error)
            return Dead(str(error), recorded=False)
        log.warning("Nothing was claimed, the messages come back later: %s", error)
        return Hide(retry_seconds(1), str(error))

    def _end(self, groups: Mapping[Key, SegmentRequest], answers: Mapping[Key, ClaimAnswer]) -> dict[Key, Outcome]:
        """Work on what was claimed and settle it; an outcome a request."""
        outcomes: dict[Key, Outcome] = {}
        claims: dict[Key, Claimed] = {}
        abandoned: list[Ending] = []
        for key, answer in answers.items():
            match answer:
                case Claimed():
                    claims[key] = answer
                case Abandoned(claim):
                    claims[key] = claim
                    abandoned.append(_give_up(claim))
                case _:
                    outcomes[key] = _without_claim(groups[key], answer)
        ended = self._work(list(claims.values()), abandoned)
        for key, claim in claims.items():
            outcomes[key] = ended.get(claim.task_id) or _lost(claim)
        return outcomes

    def _work(self, claims: Sequence[Claimed], abandoned: Sequence[Ending]) -> dict[str, Outcome]:
        """An outcome a task id, none for those that were lost."""
        if not claims:
            return {}
        self._leases.hold(claims)
        try:
            given_up = {ending.claim.task_id for ending in abandoned}
            walked = self._relate([claim for claim in claims if claim.task_id not in given_up])
            outcomes: dict[str, Outcome] = {}
            for chunk in _chunks([*abandoned, *walked]):
                with self._budget.reserve(sum(map(_size_bytes, chunk))):
                    outcomes |= self._settler.settle([self._ending(each) for each in chunk], self._charge)
            return outcomes
        finally:
            self._leases.release(claims)

    def _ending(self, walked: "Ending | Walked") -> Ending:
        """A result becomes JSON only now, a chunk at a time."""
        if not isinstance(walked, Walked):
            return walked
        try:
            return Completed(walked.claim, walked.related.encode())
        except Exception as error:  # noqa: BLE001  (the edge: a bug fails its segment, not the worker)
            return self._charge(walked.claim, error)

    def _relate(self, claims: Sequence[Claimed]) -> "list[Ending | Walked]":
        """Walk the graph for all together; when that fails, for each alone, so that only the offender is charged."""
        held = [claim for claim in claims if not self._leases.is_lost(claim)]
        if not held:
            return []
        for claim in held:
            log.info("Processing segment %s for job %s", claim.segment_id, claim.job_id, extra=_fields(claim))
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
            self._charge(claim, answer) if isinstance(answer, PermanentError) else Walked(claim, answer)
            for claim, answer in zip(held, answers, strict=True)
        ]

    def _relate_each(self, claims: Sequence[Claimed]) -> "list[Ending | Walked]":
        endings: list[Ending | Walked] = []
        deadline = time.monotonic() + ONE_BY_ONE_SECONDS
        for claim in claims:
            goes_on = self._gate.is_open and time.monotonic() < deadline
            endings += self._relate([claim]) if goes_on else [GivenBack(claim)]
        return endings

    def _charge(self, claim: Claimed, error: Exception) -> Ending:
        """What a failed attempt means for its segment."""
        text = _printable(error)
        if not isinstance(error, ProcessorError):
            log.error(
                "Segment %s of job %s met a bug", claim.segment_id, claim.job_id, exc_info=error, extra=_fields(claim)
            )
        if isinstance(error, PermanentError):
            _say_failed(claim, text)
            return Failed(claim, text)
        if claim.attempts >= self._max_attempts:
            log.error(
                "Segment %s of job %s has failed %d times: %s",
                claim.segment_id,
                claim.job_id,
                claim.attempts,
                text,
                extra=_fields(claim),
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
            extra=_fields(claim),
        )
        return Postponed(claim, text, seconds)


class Walked(NamedTuple):
    """A segment whose relations are known and not yet JSON."""

    claim: Claimed
    related: Related


def _chunks(ended: "Sequence[Ending | Walked]") -> "Iterator[list[Ending | Walked]]":
    """Runs whose results take about `MAX_CHUNK_BYTES` together: one, as a rule."""
    chunk: list[Ending | Walked] = []
    size = 0
    for each in ended:
        weight = _size_bytes(each)
        if chunk and size + weight > MAX_CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(each)
        size += weight
    if chunk:
        yield chunk


def _size_bytes(ended: "Ending | Walked") -> int:
    return ended.related.size_bytes if isinstance(ended, Walked) else 0


def _parts(requests: Sequence[SegmentRequest], tokens: Sequence[str]) -> list[dict[str, SegmentRequest]]:
    """The requests by their tokens, job by job, or one by one when they are of one job."""
    jobs: dict[str, dict[str, SegmentRequest]] = {}
    for request, token in zip(requests, tokens, strict=True):
        jobs.setdefault(request.job_id, {})[token] = request
    if len(jobs) > 1:
        return list(jobs.values())
    return [{token: request} for request, token in zip(requests, tokens, strict=True)]


def _give_up(claim: Claimed) -> Ending:
    text = f"abandoned {claim.attempts} times: its workers died on it"
    _say_failed(claim, text)
    return Failed(claim, text)


def _say_failed(claim: Claimed, text: str) -> None:
    log.error("Segment %s of job %s has failed: %s", claim.segment_id, claim.job_id, text, extra=_fields(claim))


def _fields(claim: Claimed) -> dict[str, object] | None:
    return fields(job_id=claim.job_id, segment_id=claim.segment_id, attempt=claim.attempts)


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
    log.info("Successfully claimed segment task %s", request.segment_id, extra=_fields(claim))
    if (claim.start, claim.end) != (request.start, request.end):
        log.warning(
            "Segment %s of job %s: the message says [%d, %d), the row [%d, %d); the row's span counts",
            request.segment_id,
            request.job_id,
            request.start,
            request.end,
            claim.start,
            claim.end,
            extra=_fields(claim),
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
        case Claimed() | Abandoned() | Suspect():
            raise AssertionError("these are worked on")
    assert_never(answer)


def _say(level: int, request: SegmentRequest, what: str) -> None:
    log.log(
        level,
        "Segment %s of job %s %s",
        request.segment_id,
        request.job_id,
        what,
        extra=fields(job_id=request.job_id, segment_id=request.segment_id),
    )


def _lost(claim: Claimed) -> Outcome:
    log.warning(
        "The claim on segment %s of job %s is lost: another worker has it, nothing was written",
        claim.segment_id,
        claim.job_id,
        extra=_fields(claim),
    )
    return Leave("the claim is lost")


def _printable(error: Exception) -> str:
    """Short, and without the characters that PostgreSQL refuses."""
    text = str(error) if isinstance(error, ProcessorError) else f"{type(error).__name__}: {error}"
    return text.replace("\x00", "\\x00").encode("utf-8", "replace").decode()[:MAX_ERROR_CHARS]

"""The service: claim, relate, settle; an outcome a message.

Invariant: a message's outcome is what PostgreSQL has committed, never what was intended. A segment whose claim has
been taken over is left alone: nothing written, nothing counted, no SQS call (docs/formats.md, "Claim").
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from app.core.endings import Completed, Ending, GivenBack
from app.core.meter import NO_METER, Meter
from app.core.outcomes import Dead, Hide, Outcome
from app.core.ports import Leases, Relate, Related
from app.core.segments import Abandoned, ClaimAnswer, Claimed, SegmentRequest, Start, Suspect
from app.errors import (
    DataError,
    OutageError,
    PermanentError,
    ProcessorError,
)
from app.logs import fields, info_each
from app.service.charging import Charger, claim_fields, give_up, retry_seconds
from app.service.claiming import Claimer
from app.service.settling import OUTAGE_SECONDS, Settler
from app.service.unclaimed import lost, say, without_claim
from app.threads.budget import ByteBudget
from app.threads.gate import Gate
from app.threads.room import Room

log = logging.getLogger(__name__)

ONE_BY_ONE_SECONDS: Final = 120.0
"""How long one batch may go on segment by segment before the rest is given back."""
CATCH_UP_SECONDS: Final = 5.0
"""How often what is owed is tried again while PostgreSQL answers."""
MAX_CHUNK_BYTES: Final = 1_000_000
"""Of results that are made, and stored, together."""

type Key = tuple[str, str, str]


class TaskService:
    """Deals with segments in batches; each has an ending of its own. Safe to share between threads."""

    def __init__(
        self,
        claimer: Claimer,
        relate: Relate,
        charger: Charger,
        settler: Settler,
        leases: Leases,
        gate: Gate,
        room: Room,
        budget: ByteBudget,
        meter: Meter = NO_METER,
    ) -> None:
        """`budget`: of the results that are made and not stored yet."""
        self._claimer = claimer
        self._charge = charger.charge
        self._settler = settler
        self._relate_all = relate
        self._leases = leases
        self._gate = gate
        self._room = room
        self._budget = budget
        self._meter = meter
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
                    outcomes |= self._process_alone(key, groups[key])
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
        self._claimer.ask_again(self._settler)

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

    def _process_alone(self, key: Key, request: SegmentRequest) -> dict[Key, Outcome]:
        """A suspect, while this process works on nothing else: if it dies now, it was this segment.

        Its lease counts from now: it may have waited for others, and the heartbeat has kept its message hidden.
        """
        if not self._gate.is_open:
            return {key: Hide(OUTAGE_SECONDS, "a service is down")}
        say(logging.INFO, request, "is worked on alone: its last run left no ending")
        try:
            (answer,) = self._try_claim_segment_task([request], time.monotonic(), alone=True)
        except ProcessorError as error:
            return {key: self._not_claimed(error)}
        return self._end({key: request}, {key: answer})

    def _try_claim_segment_task(
        self, requests: Sequence[SegmentRequest], received_at: float, *, alone: bool = False
    ) -> list[ClaimAnswer]:
        """Claim the rows; an answer a request. Raises what a `ClaimStore` does, for all of them."""
        attempted = (
            ((request.segment_id,), fields(job_id=request.job_id, segment_id=request.segment_id))
            for request in requests
        )
        info_each(log, "Attempting to claim segment task %s", attempted)
        with self._meter.step("claim"):
            answers = self._claimer.claim(requests, received_at, alone=alone)
        _say_claimed(
            [
                (request, answer)
                for request, answer in zip(requests, answers, strict=True)
                if isinstance(answer, Claimed)
            ]
        )
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
                    abandoned.append(give_up(claim))
                case _:
                    outcomes[key] = without_claim(groups[key], answer)
        ended = self._work(list(claims.values()), abandoned)
        self._meter.lost(len(claims) - len(ended))
        for key, claim in claims.items():
            outcomes[key] = ended.get(claim.task_id) or lost(claim)
        return outcomes

    def _work(self, claims: Sequence[Claimed], abandoned: Sequence[Ending]) -> dict[str, Outcome]:
        """An outcome a task id, none for those that were lost."""
        if not claims:
            return {}
        self._leases.hold(claims)
        try:
            given_up = {ending.claim.task_id for ending in abandoned}
            with self._meter.step("walk"):
                walked = self._relate([claim for claim in claims if claim.task_id not in given_up])
            outcomes: dict[str, Outcome] = {}
            for chunk in _chunks([*abandoned, *walked]):
                with self._budget.reserve(sum(map(_size_bytes, chunk))), self._meter.step("settle"):
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
        begun = (((claim.segment_id, claim.job_id), claim_fields(claim)) for claim in held)
        info_each(log, "Processing segment %s for job %s", begun)
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
    return Start(
        claim.manifestation_id, claim.start, claim.end, claim.fresh_since_us, claim.read_at_us, claim.job_segments
    )


def _say_claimed(claimed: Sequence[tuple[SegmentRequest, Claimed]]) -> None:
    info_each(
        log,
        "Successfully claimed segment task %s",
        (((claim.segment_id,), claim_fields(claim)) for _, claim in claimed),
    )
    for request, claim in claimed:
        if (claim.start, claim.end) != (request.start, request.end):
            log.warning(
                "Segment %s of job %s: the message says [%d, %d), the row [%d, %d); the row's span counts",
                request.segment_id,
                request.job_id,
                request.start,
                request.end,
                claim.start,
                claim.end,
                extra=claim_fields(claim),
            )

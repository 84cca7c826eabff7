"""Claims a batch around what somebody has locked, and remembers what was asked and not answered.

Invariant: tokens are made here, once for each asking, so that PostgreSQL knows a claim that is repeated; a claim whose
answer was lost is asked for again and given back, and charges nobody.
"""

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final
from uuid import uuid4

from app.core.ports import ClaimStore
from app.core.segments import ClaimAnswer, Claimed, HeldElsewhere, SegmentRequest
from app.errors import DataError, OutageError, ProcessorError, StatementTimeoutError
from app.service.settling import Settler
from app.service.unclaimed import say

log = logging.getLogger("app.tasks")
"""The service speaks with one name, whatever its parts."""

LOCKED_SECONDS: Final = 10.0
"""How long a message waits whose row somebody has locked."""
CATCH_UP_LEASE_SECONDS: Final = 5.0
"""Of a claim that is made again only to be given back."""
MAX_UNANSWERED: Final = 16
"""Claims of so many batches are asked for again when PostgreSQL is back; one a lane."""

type Unanswered = tuple[Sequence[SegmentRequest], Sequence[str]]
"""Requests and their tokens."""


class Claimer:
    """Safe to share between threads. `lease_seconds`: how long a claim holds, from the receive of its message.

    A claim whose message has waited here holds for half of that from now: its visibility was renewed meanwhile.
    """

    def __init__(self, claims: ClaimStore, *, lease_seconds: float) -> None:
        self._claims = claims
        self._lease_seconds = lease_seconds
        self._unanswered: deque[Unanswered] = deque(maxlen=MAX_UNANSWERED)

    def claim(
        self, requests: Sequence[SegmentRequest], received_at: float, *, alone: bool = False
    ) -> list[ClaimAnswer]:
        """An answer a request; `received_at`: `time.monotonic()`. Raises what a `ClaimStore` does, for all of them."""
        return self._claim(requests, [str(uuid4()) for _ in requests], received_at, alone=alone)

    def ask_again(self, settler: Settler) -> None:
        """What PostgreSQL did not answer: the same claims, given back at once. Raises `ProcessorError`.

        A claim that is refused for its data, or meets somebody's lock, is answered.
        """
        while self._unanswered:
            with suppress(IndexError, DataError, StatementTimeoutError):  # IndexError: another thread has just asked
                self._ask_again(self._unanswered.popleft(), settler)

    def _ask_again(self, unanswered: Unanswered, settler: Settler) -> None:
        try:
            answers = self._claims.claim(*unanswered, CATCH_UP_LEASE_SECONDS)
            settler.give_back([answer for answer in answers if isinstance(answer, Claimed)])
        except OutageError:
            self._unanswered.appendleft(unanswered)
            raise

    def _claim(
        self, requests: Sequence[SegmentRequest], tokens: Sequence[str], received_at: float, *, alone: bool
    ) -> list[ClaimAnswer]:
        """All together; where a locked row does not let them, job by job and then row by row."""
        # What has waited here, for somebody's lock as a rule, was kept by the heartbeat's beats: for so long at least.
        lease_seconds = max(received_at + self._lease_seconds - time.monotonic(), self._lease_seconds / 2)
        try:
            return self._claims.claim(requests, tokens, lease_seconds, alone=alone)
        except OutageError:
            self._unanswered.append((requests, tokens))
            raise
        except StatementTimeoutError as error:
            if len(requests) == 1:
                say(logging.WARNING, requests[0], f"is locked by somebody: {error}")
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


def _parts(requests: Sequence[SegmentRequest], tokens: Sequence[str]) -> list[dict[str, SegmentRequest]]:
    """The requests by their tokens, job by job, or one by one when they are of one job."""
    jobs: dict[str, dict[str, SegmentRequest]] = {}
    for request, token in zip(requests, tokens, strict=True):
        jobs.setdefault(request.job_id, {})[token] = request
    if len(jobs) > 1:
        return list(jobs.values())
    return [{token: request} for request, token in zip(requests, tokens, strict=True)]

"""What a failed attempt means for its segment: again later, or FAILED.

Invariant: an attempt is charged here and nowhere else, and only to the segment whose own it was.
"""

import logging
import random
from collections.abc import Callable
from typing import Final

from app.core.endings import Ending, Failed, Postponed
from app.core.segments import Claimed
from app.errors import PermanentError, ProcessorError
from app.logs import fields

log = logging.getLogger("app.tasks")
"""The service speaks with one name, whatever its parts."""

FIRST_RETRY_SECONDS: Final = 5.0
SLOWEST_RETRY_SECONDS: Final = 900.0
MAX_ERROR_CHARS: Final = 2_000


def retry_seconds(attempts: int, jitter: Callable[[], float] = random.random) -> float:
    """Exponential backoff after attempt number `attempts` (1 is the first), half of it jitter; at most 15 min."""
    longest = min(FIRST_RETRY_SECONDS * 2.0 ** min(attempts - 1, 30), SLOWEST_RETRY_SECONDS)
    return longest * (0.5 + jitter() / 2)


class Charger:
    """`max_attempts`: how many may fail before the segment does."""

    def __init__(self, max_attempts: int) -> None:
        self._max_attempts = max_attempts

    def charge(self, claim: Claimed, error: Exception) -> Ending:
        """What a failed attempt means for its segment."""
        text = _printable(error)
        if not isinstance(error, ProcessorError):
            log.error(
                "Segment %s of job %s met a bug",
                claim.segment_id,
                claim.job_id,
                exc_info=error,
                extra=claim_fields(claim),
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
                extra=claim_fields(claim),
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
            extra=claim_fields(claim),
        )
        return Postponed(claim, text, seconds)


def give_up(claim: Claimed) -> Ending:
    """The end of a segment that workers have died on too often, alone."""
    text = f"abandoned {claim.attempts} times: its workers died on it"
    _say_failed(claim, text)
    return Failed(claim, text)


def claim_fields(claim: Claimed) -> dict[str, object] | None:
    """The ids of a log line about a claim."""
    return fields(job_id=claim.job_id, segment_id=claim.segment_id, attempt=claim.attempts)


def _say_failed(claim: Claimed, text: str) -> None:
    log.error("Segment %s of job %s has failed: %s", claim.segment_id, claim.job_id, text, extra=claim_fields(claim))


def _printable(error: Exception) -> str:
    """Short, and without the characters that PostgreSQL refuses."""
    text = str(error) if isinstance(error, ProcessorError) else f"{type(error).__name__}: {error}"
    return text.replace("\x00", "\\x00").encode("utf-8", "replace").decode()[:MAX_ERROR_CHARS]

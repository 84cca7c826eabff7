"""What becomes of a message whose segment was not claimed, and of one whose claim was lost.

Invariant: each says one log line that names ids and reason.
"""

import logging
from typing import Final, assert_never

from app.core.outcomes import Dead, Done, Hide, Leave, Outcome
from app.core.segments import (
    Abandoned,
    AlreadyCompleted,
    AlreadyFailed,
    ClaimAnswer,
    Claimed,
    ForeignManifestation,
    HeldElsewhere,
    JobCancelled,
    SegmentRequest,
    Suspect,
    Unknown,
)
from app.logs import fields
from app.service.charging import claim_fields

log = logging.getLogger("app.tasks")
"""The service speaks with one name, whatever its parts."""

UNKNOWN_FOR_SECONDS: Final = 120.0
"""How long after its sending a message may wait for its producer to commit the row."""
FIRST_UNKNOWN_SECONDS: Final = 5.0


def unknown_seconds(age_seconds: float) -> float:
    """How long to hide a message without a row: 5 s and then doubling (5, 10, 20, ...), told from its age alone."""
    return FIRST_UNKNOWN_SECONDS + max(age_seconds, 0.0)


def without_claim(request: SegmentRequest, answer: ClaimAnswer) -> Outcome:
    """The outcome of an answer that gives no work."""
    match answer:
        case AlreadyCompleted():
            say(logging.INFO, request, "is already completed, this message is a duplicate")
            return Done("already completed")
        case JobCancelled():
            say(logging.INFO, request, "belongs to a cancelled job")
            return Done("cancelled")
        case AlreadyFailed(error):
            say(logging.WARNING, request, f"has already failed: {error}")
            return Dead(error, recorded=True)
        case HeldElsewhere(seconds):
            say(logging.INFO, request, f"is held, back in {seconds:.1f} s")
            return Hide(seconds, "held")
        case Unknown(age_seconds) if age_seconds < UNKNOWN_FOR_SECONDS:
            seconds = unknown_seconds(age_seconds)
            say(logging.INFO, request, f"has no row yet, back in {seconds:.0f} s")
            return Hide(seconds, "no row yet")
        case Unknown(age_seconds):
            reason = f"no job {request.job_id} with segment {request.segment_id!r} exists"
            say(logging.ERROR, request, f"is unknown {age_seconds:.0f} s after its message was sent")
            return Dead(reason, recorded=False)
        case ForeignManifestation(manifestation_id):
            reason = f"manifestation_id: the job belongs to {manifestation_id!r}, not to {request.manifestation_id!r}"
            say(logging.ERROR, request, f"is poison: {reason}")
            return Dead(reason, recorded=False)
        case Claimed() | Abandoned() | Suspect():
            raise AssertionError("these are worked on")
    assert_never(answer)


def lost(claim: Claimed) -> Outcome:
    """The outcome of a claim that somebody else has taken over."""
    log.warning(
        "The claim on segment %s of job %s is lost: another worker has it, nothing was written",
        claim.segment_id,
        claim.job_id,
        extra=claim_fields(claim),
    )
    return Leave("the claim is lost")


def say(level: int, request: SegmentRequest, what: str) -> None:
    """A log line about a segment."""
    log.log(
        level,
        "Segment %s of job %s %s",
        request.segment_id,
        request.job_id,
        what,
        extra=fields(job_id=request.job_id, segment_id=request.segment_id),
    )

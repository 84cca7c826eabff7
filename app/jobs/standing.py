"""Why a job does not get on, in a few aligned lines for a person.

Invariant: each line that names a trouble names what mends it; of what there is nothing of there is no line.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from app.core.jobs import Job
from app.core.standing import Standing
from app.errors import ConfigurationError, ProcessorError
from app.jobs.printing import aligned, moment
from app.jobs.wiring import LazyParts
from app.logs import one_line
from app.sqs.queue import QueueFacts

MINUTE: Final = 60
HOUR: Final = 3_600
DAY: Final = 86_400


class Depth(NamedTuple):
    """The input queue's name and what it holds, or why that can't be told."""

    name: str
    facts: QueueFacts | None
    reason: str | None


def read_depth(parts: LazyParts) -> Depth:
    """Now. Nobody needs it to look at a job, so it never raises `ProcessorError`."""
    name = ""
    try:
        name = parts.queue.name
        return Depth(name, parts.queue.facts(), None)
    except ConfigurationError as error:
        reason = one_line(str(error)) if name else "SQS_QUEUE_URL, or how to reach it, is not set rightly"
        return Depth(name, None, reason)
    except ProcessorError as error:
        return Depth(name, None, one_line(str(error)))


def describe_standing(job: Job, standing: Standing) -> str:
    """Lines that go on below those of `describe_job`."""
    return "\n".join(aligned(name, value) for name, value in _lines(job, standing))


def describe_depth(name: str, facts: QueueFacts | None, reason: str | None) -> str:
    """A line about the input queue; `reason`: why nothing can be told of it."""
    if facts is None:
        return aligned("queue", f"its depth can't be told: {reason}")
    hidden = facts.messages - facts.waiting
    return aligned("queue", f"{name}: about {facts.waiting} messages of all jobs wait, {hidden} are hidden")


def _lines(job: Job, standing: Standing) -> Iterator[tuple[str, str]]:
    yield "rows", ", ".join(f"{count} {status}" for status, count in standing.rows.items() if count) or "none"
    if standing.held:
        yield "held", f"{_segments(standing.held)} in work"
        for holder in standing.held_by:
            yield "", f"{holder.segments} by {one_line(holder.worker)}, leased until {moment(holder.until)}"
    if standing.retrying:
        last = "" if standing.retrying == 1 else f", the last at {moment(standing.retry_last_at)}"
        yield "retrying", f"{_segments(standing.retrying)}, the first at {moment(standing.retry_first_at)}{last}"
    if standing.unsent:
        yield (
            "unsent",
            f"{_segments(standing.unsent)} without a message that was noted as sent: python -m app.jobs resume"
            f" {job.job_id}",
        )
    if standing.abandoned:
        yield "abandoned", f"{_segments(standing.abandoned)}, whose worker let the lease run out"
    if standing.sent:
        yield "sent", f"{_segments(standing.sent)}, whose messages are on their way or lost"
    if standing.resend_from:
        yield (
            "sent again",
            f"by a worker from {moment(standing.resend_from)} on; now by: python -m app.jobs reconcile {job.job_id}"
            " --after 0",
        )
    if error := standing.last_error:
        yield "last error", f"{one_line(error.error)} (segment {one_line(error.segment_id)}, {error.status})"
        yield "", f"at {moment(error.at)}; all of them: python -m app.jobs show {job.job_id} --status {error.status}"
    if not job.has_ended:
        yield "rate", _rate(job, standing)


def _rate(job: Job, standing: Standing) -> str:
    speed = standing.lately
    left = speed.seconds_left(job)
    if left is None:
        return f"no segment has ended in the last {speed.seconds:.0f} s"
    return f"{speed.per_second:.3g} segments a second, about {duration(left)} left"


def duration(seconds: float) -> str:
    """`seconds` in the largest two units that say something."""
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE} s"
    if whole < DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"
    return f"{whole // DAY} d {whole % DAY // HOUR} h"


def _segments(count: int) -> str:
    return f"{count} segment{'' if count == 1 else 's'}"

"""The words of the line that says how it goes. Pure.

Invariant: one line, which starts with what is wrong, if something is, and tells only what is known.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

from app.worker.lookout import WorkAhead
from app.worker.tally import NAMES


def describe(counts: Counter[type], seconds: float, paused: Mapping[str, float], ahead: WorkAhead) -> str:
    """Such as ``1,200 messages in 60 s (20.0/s): 1,190 done, 10 to come back; backlog 3,400; no unfinished job``.

    `counts`: outcomes in the last `seconds`; `paused`: for how many seconds each service has been down.
    """
    parts = [*_pauses(paused), _messages(counts, seconds), *_ahead(ahead)]
    return "; ".join(parts)


def duration(seconds: float) -> str:
    """In the largest unit of which there are two or more: ``90 s``, ``12 minutes``, ``5 hours``, ``3 days``."""
    for unit, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(0.0, seconds):.0f} s"


def _pauses(paused: Mapping[str, float]) -> Iterator[str]:
    if paused:
        downs = (f"{service} has been down for {duration(seconds)}" for service, seconds in sorted(paused.items()))
        yield f"{', '.join(downs)}, receiving is paused"


def _messages(counts: Counter[type], seconds: float) -> str:
    total = counts.total()
    if not total:
        return f"no messages in {seconds:.0f} s"
    kinds = ", ".join(f"{counts[kind]:,} {name}" for kind, name in NAMES.items() if counts[kind])
    return f"{total:,} messages in {seconds:.0f} s ({total / max(seconds, 0.001):.1f}/s): {kinds}"


def _ahead(ahead: WorkAhead) -> Iterator[str]:
    if ahead.backlog is not None:
        yield f"backlog {ahead.backlog:,}"
    if ahead.dead_letters:
        yield f"dead letters {ahead.dead_letters:,}"
    lag = ahead.lag
    if lag is None:
        return
    if lag.oldest_job is None:
        yield "no unfinished job"
    else:
        oldest = lag.oldest_job
        yield f"oldest unfinished job {oldest.job_id} of {oldest.manifestation_id}, {duration(oldest.age_seconds)} old"
    if lag.unsent_completions:
        yield f"{lag.unsent_completions:,} completions not sent for {duration(lag.unsent_seconds)}"

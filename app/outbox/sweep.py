"""Sweeps up what was forgotten: job states, outbox rows, lost messages.

Invariant: what a sweep sends is marked first, so that two sweeps at once send it once; one that dies in between has
only put it off. Nothing in PostgreSQL is locked while SQS is being talked to.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.core.ports import OutboxStore
from app.core.unsent import SpanFinder, UnsentSegment, with_spans
from app.outbox.messages import segment_message
from app.outbox.pace import FEWEST_RESENT
from app.outbox.relay import Relay
from app.sqs.queue import Outgoing, Queue

log = logging.getLogger(__name__)

LOOK_FOR_MISSING_SECONDS: Final = 3_600.0
"""Only a hand can leave a COMPLETED job without its outbox row, and finding one means to look at every job of a day."""
MAX_RELAYED_A_SWEEP: Final = 100
"""Bounded, as the segments are, so that a sweep stays cheap; what is left waits for the next one."""
MOST_NAMED: Final = 10


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep found and repaired."""

    jobs_ended: int = 0
    outbox_rows_added: int = 0
    completions_sent: int = 0
    segments_resent: int = 0
    segments_without_span: int = 0

    @property
    def found_nothing(self) -> bool:
        """Nothing was broken."""
        return self == SweepReport()


class Sweep:
    """Finds what nobody will otherwise do. Cheap when there is nothing: three statements that read next to nothing."""

    def __init__(self, outbox: OutboxStore, relay: Relay, segments: Queue, spans: SpanFinder) -> None:
        self._outbox = outbox
        self._relay = relay
        self._segments = segments
        self._spans = spans
        self._next_look_for_missing = 0.0

    def run(
        self, job_id: str | None = None, after_seconds: float | None = None, limit: int = FEWEST_RESENT
    ) -> SweepReport:
        """One sweep, over all jobs or over one, that sends at most `limit` messages of segments again.

        `after_seconds`: whose last message is older than that; by default, whose time has come. Raises
        `ProcessorError`; what was done until then stays done.
        """
        ended = self._outbox.finish_forgotten(job_id)
        added = self._add_missing(job_id)
        relayed = self._relay.send(self._outbox.lease_unsent(MAX_RELAYED_A_SWEEP, job_id))
        resent, unknown = self._send_again(limit, job_id, after_seconds) if limit else (0, 0)
        return SweepReport(len(ended), len(added), relayed, resent, unknown)

    def count_waiting(self) -> int:
        """Messages that wait on the input queue for somebody to receive them. Raises `ProcessorError`."""
        return self._segments.facts().waiting

    def _add_missing(self, job_id: str | None) -> list[str]:
        if job_id is None:
            if time.monotonic() < self._next_look_for_missing:
                return []
            self._next_look_for_missing = time.monotonic() + LOOK_FOR_MISSING_SECONDS
        return self._outbox.add_missing(job_id)

    def _send_again(self, limit: int, job_id: str | None, after_seconds: float | None) -> tuple[int, int]:
        """How many messages went out, and how many can't since nobody knows their segment's span.

        Those with a span go first: the graph, which the others need, may not answer, and then those stay unmarked.
        """
        found = self._outbox.mark_for_resending(limit, job_id, after_seconds)
        resent = self._send([segment for segment in found if segment.start is not None])
        known, unknown = with_spans(
            [segment for segment in found if segment.start is None], self._spans, self._outbox.store_spans
        )
        for segment in unknown:
            log.error(
                "Segment %s of job %s is unfinished, and neither its row nor the graph knows its span",
                segment.segment_id,
                segment.job_id,
            )
        if unknown:
            self._outbox.put_off([segment.task_id for segment in unknown])
        if known:
            marked = self._outbox.mark_for_resending(len(known), job_id, after_seconds)
            resent += self._send([segment for segment in marked if segment.start is not None])
        return resent, len(unknown)

    def _send(self, segments: Sequence[UnsentSegment]) -> int:
        if not segments:
            return 0
        refused = self._segments.send([Outgoing(segment_message(segment)) for segment in segments])
        jobs = sorted({f"job {segment.job_id}" for segment in segments})
        more = f" and {len(jobs) - MOST_NAMED} more" if len(jobs) > MOST_NAMED else ""
        log.warning(
            "Sent the messages of %d unfinished segments again, nobody was working on them: %s%s",
            len(segments) - len(refused),
            ", ".join(jobs[:MOST_NAMED]),
            more,
        )
        return len(segments) - len(refused)

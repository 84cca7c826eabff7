"""Relays completion messages, and sweeps up what was forgotten: the outbox, job states, lost messages.

Invariant: a completion message is sent after its job's transaction has committed and marked after it was sent, so it
may be repeated but not lost; nothing in PostgreSQL is locked while SQS is being talked to.
"""

import json
import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from app.errors import OutageError, ProcessorError
from app.outage import Gate
from app.pace import FEWEST_RESENT, Pace
from app.ports import RESEND_AFTER_SECONDS, Announcement, OutboxStore, UnsentSegment
from app.sqs import Outgoing, Queue
from app.stopping import Stop

__all__ = [
    "RESEND_AFTER_SECONDS",
    "Housekeeper",
    "Relay",
    "SpanFinder",
    "Sweep",
    "SweepReport",
    "segment_message",
    "with_spans",
]

log = logging.getLogger(__name__)

SWEEP_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 1.0
"""How often the queue is asked whether lost messages can come back faster; asked only when there are more of them."""
LOOK_FOR_MISSING_SECONDS: Final = 3_600.0
"""Only a hand can leave a COMPLETED job without its outbox row, and finding one means to look at every job of a day."""
STEP_SECONDS: Final = 0.2
MAX_RELAYED_A_SWEEP: Final = 100
"""Bounded, as the segments are, so that a sweep stays cheap; what is left waits for the next one."""
MOST_NAMED: Final = 10


class SpanFinder(Protocol):
    """The graph, asked for the spans of segments whose producer gave none."""

    def find_spans(self, segment_ids: Sequence[str]) -> Mapping[str, tuple[int, int]]:
        """Half-open spans of those segments that have one. Raises `ProcessorError`."""
        ...


class Relay:
    """Sends leased completion messages and marks them."""

    def __init__(self, outbox: OutboxStore, completed: Queue) -> None:
        self._outbox = outbox
        self._completed = completed

    def send(self, announcements: Sequence[Announcement]) -> int:
        """Send and mark; how many went out. Those that did not are left to a sweep. Raises `ProcessorError`."""
        if not announcements:
            return 0
        refused = self._completed.send([_completion_message(each) for each in announcements])
        for at, reason in refused.items():
            log.warning("The completion message of job %s was refused: %s", announcements[at].job_id, reason)
        sent = [each for at, each in enumerate(announcements) if at not in refused]
        self._outbox.mark_sent(sent)
        for each in sent:
            log.info(
                "Job %s of manifestation %s is completed, its message is sent",
                each.job_id,
                each.manifestation_id,
            )
        return len(sent)


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep found and mended."""

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


class Housekeeper:
    """The thread that relays what the finishers hand over at once, and sweeps now and then."""

    def __init__(self, relay: Relay, sweep: Sweep, gate: Gate, every_seconds: float = SWEEP_SECONDS) -> None:
        self._relay = relay
        self._sweep = sweep
        self._gate = gate
        self._every_seconds = every_seconds
        self._pace = Pace()
        self._inbox: queue.SimpleQueue[Sequence[Announcement]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._pending = 0

    def submit(self, announcements: Sequence[Announcement]) -> None:
        """Send these soon; if that fails a sweep will. Never blocks."""
        if announcements:
            self._count(len(announcements))
            self._inbox.put(announcements)

    @property
    def is_idle(self) -> bool:
        """Whether everything handed over has been dealt with."""
        return self._pending == 0

    def run(self, stop: Stop) -> None:
        """Relay and sweep until `stop`, then relay what is left."""
        # Soon, since what was forgotten may wait for just this start; spread, since workers start together.
        next_sweep = time.monotonic() + self._every_seconds * random.random() / 6  # noqa: S311
        next_look = 0.0
        while not stop.is_set():
            if self._relay_next(STEP_SECONDS):
                continue
            now = time.monotonic()
            if now >= next_sweep:
                self._pace.slow_down()
            elif self._pace.has_more and now >= next_look:
                next_look = now + LOOK_SECONDS
                if not self._may_go_on():
                    continue
            else:
                continue
            self._try(self._sweep_once, "A sweep")
            next_sweep = time.monotonic() + self._every_seconds * random.uniform(0.8, 1.2)  # noqa: S311
        while self._relay_next(0.0):
            pass

    def _relay_next(self, wait_seconds: float) -> bool:
        """Relay what comes within `wait_seconds`; whether there was anything."""
        try:
            announcements = self._inbox.get(block=wait_seconds > 0, timeout=wait_seconds)
        except queue.Empty:
            return False
        self._try(lambda: self._relay.send(announcements), "Relaying completions")
        self._count(-len(announcements))
        return True

    def _count(self, more: int) -> None:
        with self._lock:
            self._pending += more

    def _may_go_on(self) -> bool:
        """Whether lost messages that were sent again are worked off, so that the next can follow at once."""
        waiting: list[int] = []
        if self._gate.is_open:
            self._try(lambda: waiting.append(self._sweep.count_waiting()), "Asking the queue")
        return bool(waiting) and self._pace.speed_up(waiting[0])

    def _sweep_once(self) -> None:
        resent = 0
        try:
            if self._gate.is_open:
                resent = self._sweep.run(limit=self._pace.limit).segments_resent
        finally:
            self._pace.note(resent)

    def _try(self, step: Callable[[], object], what: str) -> None:
        try:
            step()
        except OutageError as error:
            self._gate.close(error.service, error.reason)
        except ProcessorError as error:
            log.warning("%s failed, and is tried again: %s", what, error)
        except Exception:
            log.exception("%s failed, and is tried again", what)


def with_spans(
    segments: Sequence[UnsentSegment], graph: SpanFinder, store: Callable[[Sequence[tuple[str, int, int]]], None]
) -> tuple[list[UnsentSegment], list[UnsentSegment]]:
    """Those that a message can be sent for, and those whose span neither their row nor the graph knows.

    Spans that their producer did not give are read from the graph and kept. Raises `ProcessorError`.
    """
    bare = [segment for segment in segments if segment.start is None]
    if not bare:
        return list(segments), []
    spans = graph.find_spans([segment.segment_id for segment in bare])
    mended = [
        replace(segment, start=spans[segment.segment_id][0], end=spans[segment.segment_id][1])
        for segment in bare
        if segment.segment_id in spans
    ]
    if mended:
        store([(segment.task_id, *spans[segment.segment_id]) for segment in mended])
    unknown = [segment for segment in bare if segment.segment_id not in spans]
    return [segment for segment in segments if segment.start is not None] + mended, unknown


def segment_message(segment: UnsentSegment) -> str:
    """The body of the message that asks for `segment`."""
    return json.dumps(
        {
            "job_id": segment.job_id,
            "manifestation_id": segment.manifestation_id,
            "segment_id": segment.segment_id,
            "start": segment.start,
            "end": segment.end,
        }
    )


def _completion_message(announcement: Announcement) -> Outgoing:
    body = json.dumps({"job_id": announcement.job_id, "manifestation_id": announcement.manifestation_id})
    return Outgoing(body, deduplication_id=announcement.job_id)

"""The producer: cuts a manifestation into one job, a message a segment. `python -m app.jobs` is its command line.

Invariant: the job and all its segments are committed before the first message is sent, and a segment is marked as
sent only when SQS has taken its message; so a crash anywhere leaves a job that `send_unsent` finishes, and that a
worker's sweep finds by itself.
"""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from pydantic import TypeAdapter, ValidationError

from app.core.jobs import ConflictError, Job, NotFoundError, SegmentSource
from app.core.unsent import UnsentSegment, with_spans
from app.db.jobs import PostgresJobs
from app.errors import ConfigurationError, OutageError, PermanentError, ProcessorError, TransientError
from app.models import Id, SegmentMessage
from app.outbox.messages import segment_message
from app.sqs.queue import Outgoing, QueueFacts

PAGE_SEGMENTS: Final = 100
"""Messages sent between two bookmarks: so many may be sent twice after a crash, which does no harm."""
PAUSES_SECONDS: Final = (0.25, 0.5, 1.0, 2.0)
"""Before each new try of messages that SQS refused."""

_ID: Final = TypeAdapter[str](Id)


class MessageQueue(Protocol):
    """The input queue. Raises `OutageError`, `TransientError` or `ConfigurationError`."""

    @property
    def name(self) -> str:
        """As people know it."""
        ...

    def facts(self) -> QueueFacts:
        """What the queue says of itself."""
        ...

    def send(self, messages: Sequence[Outgoing]) -> dict[int, str]:
        """Send, ten a call; position to reason of those that are not on the queue."""
        ...


@dataclass(slots=True)
class Sending:
    """What became of the messages of a job that had not been sent."""

    sent: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    """Segment id to reason, after the last try."""
    without_span: list[str] = field(default_factory=list)
    """Ids of segments whose span neither their row nor the graph knows."""

    @property
    def is_complete(self) -> bool:
        """Every message that was wanted is on the queue."""
        return not self.refused and not self.without_span


class Producer:
    """Makes jobs and sends their messages."""

    def __init__(
        self,
        store: PostgresJobs,
        queue: MessageQueue,
        graph: SegmentSource,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._queue = queue
        self._graph = graph
        self._sleep = sleep

    def create(self, manifestation_id: str) -> Job:
        """Commit a job over all segments of the manifestation; no message is sent yet.

        Raises `NotFoundError` for an unknown text or one without segments, `PermanentError` for an id or a segment
        that no message can carry, `ConfigurationError` for a queue that cannot serve; there is no job then.
        """
        check_id(manifestation_id)
        self._check_queue()
        segments = self._graph.list_segments(manifestation_id)
        if segments is None:
            raise NotFoundError(f"the manifestation {manifestation_id!r} does not exist in the graph")
        if not segments:
            raise NotFoundError(
                f"the manifestation {manifestation_id!r} has no segments: it has neither a segmentation nor a"
                " pagination that holds any"
            )
        job_id = str(uuid.uuid4())
        self._store.create(job_id, manifestation_id, _checked(job_id, manifestation_id, segments))
        return find_job(self._store, job_id)

    def send_unsent(
        self,
        job_id: str,
        on_sent: Callable[[int], None] = lambda _count: None,
        *,
        keep_going: Callable[[], bool] = lambda: True,
    ) -> Sending:
        """Send the messages of QUEUED segments that were never sent; `on_sent` is told how many more are out.

        `keep_going` is asked between pages. Raises `OutageError` or `ConfigurationError` when SQS or PostgreSQL is
        lost; what went out is marked.
        """
        job = find_job(self._store, job_id)
        if job.cancelled_at:
            raise ConflictError(f"job {job_id} was cancelled; `retry` takes that back")
        sending = Sending()
        after: str | None = None
        while keep_going() and (page := self._store.list_unsent(job_id, after, PAGE_SEGMENTS)):
            after = page[-1].segment_id
            if not self._send_page(page, sending, on_sent):
                break
        return sending

    def _send_page(self, page: Sequence[UnsentSegment], sending: Sending, on_sent: Callable[[int], None]) -> bool:
        """Send and mark; whether to go on: a queue that takes nothing of a page is not asked for more."""
        ready, bare = with_spans(page, self._graph, self._store.store_spans)
        sending.without_span += [segment.segment_id for segment in bare]
        refused, lost = self._send(ready)
        sent = [segment.task_id for segment in ready if segment.segment_id not in refused]
        if sent:
            self._store.mark_sent(sent)
            sending.sent += len(sent)
            on_sent(len(sent))
        if lost:
            raise lost
        sending.refused.update(refused)
        return bool(sent) or not ready

    def _send(self, segments: Sequence[UnsentSegment]) -> tuple[dict[str, str], ProcessorError | None]:
        """Why those that are not on the queue are not, by segment id; and what makes trying again useless."""
        waiting = list(segments)
        refused: dict[int, str] = {}
        for pause in (*PAUSES_SECONDS, None):
            lost: ProcessorError | None = None
            try:
                refused = self._queue.send([Outgoing(segment_message(segment)) for segment in waiting])
            except ProcessorError as error:
                refused = dict.fromkeys(range(len(waiting)), str(error))
                lost = error if isinstance(error, OutageError) or not isinstance(error, TransientError) else None
            if not refused or lost or pause is None:
                break
            waiting = [waiting[at] for at in sorted(refused)]
            self._sleep(pause)
        return {waiting[at].segment_id: reason for at, reason in refused.items()}, lost

    def _check_queue(self) -> None:
        if self._queue.facts().is_fifo:
            raise ConfigurationError(
                f"the queue {self._queue.name!r} is a FIFO queue: it would hand out one segment at a time;"
                " SQS_QUEUE_URL must name a standard queue"
            )


def find_job(store: PostgresJobs, job_id: str) -> Job:
    """The job. Raises `NotFoundError`."""
    job = store.get(job_id)
    if job is None:
        raise NotFoundError(f"there is no job {job_id}")
    return job


def check_id(manifestation_id: str) -> None:
    """Raise `PermanentError` when no message could carry the id."""
    try:
        manifestation_id.encode()
        _ID.validate_python(manifestation_id)
    except UnicodeEncodeError:
        raise PermanentError("the manifestation's id must be valid Unicode") from None
    except ValidationError as error:
        raise PermanentError(f"the manifestation's id {_reasons(error)}") from None


def _checked(
    job_id: str, manifestation_id: str, segments: Sequence[tuple[str, int, int]]
) -> list[tuple[str, int, int]]:
    """Each segment once. Raises `PermanentError` that names one that cannot be sent, or has two spans."""
    by_id: dict[str, tuple[str, int, int]] = {}
    for segment_id, start, end in segments:
        try:
            SegmentMessage(
                job_id=uuid.UUID(job_id),
                manifestation_id=manifestation_id,
                segment_id=segment_id,
                start=start,
                end=end,
            )
        except ValidationError as error:
            raise PermanentError(
                f"the segment {segment_id!r:.80} of the manifestation {manifestation_id!r} cannot be sent: it"
                f" {_reasons(error)}"
            ) from None
        if by_id.setdefault(segment_id, (segment_id, start, end)) != (segment_id, start, end):
            raise PermanentError(f"the segment {segment_id!r} of {manifestation_id!r} has two different spans")
    return list(by_id.values())


def _reasons(error: ValidationError) -> str:
    items = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(str(item["msg"]).removeprefix("Value error, ").removeprefix("Input ") for item in items)

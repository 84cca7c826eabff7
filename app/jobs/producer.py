"""The producer: cuts a manifestation into one job, a message a segment. `python -m app.jobs` is its command line.

Invariant: the job and all its segments are committed before the first message is sent, and a segment is marked as
sent only when SQS has taken its message; so a crash anywhere leaves a job that `send_unsent` finishes, and that a
worker's sweep finds by itself.
"""

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Final

from pydantic import TypeAdapter, ValidationError

from app.core.jobs import ConflictError, Job, KeyTakenError, NotFoundError, SegmentSource
from app.db.jobs import PostgresJobs
from app.errors import ConfigurationError, PermanentError, TransientError
from app.jobs.sending import PAGE_SEGMENTS as PAGE_SEGMENTS
from app.jobs.sending import PAUSES_SECONDS as PAUSES_SECONDS
from app.jobs.sending import Dispatcher, MessageQueue
from app.jobs.sending import Sending as Sending
from app.models import Id, SegmentMessage

_ID: Final = TypeAdapter[str](Id)


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
        self._messages = Dispatcher(store, queue, graph, sleep)

    def create(self, manifestation_id: str) -> Job:
        """Commit a job over all segments of the manifestation; no message is sent yet.

        Raises `NotFoundError` for an unknown text or one without segments, `PermanentError` for an id or a segment
        that no message can carry, `ConfigurationError` for a queue that cannot serve; there is no job then.
        """
        job_id, segments = self._cut(manifestation_id)
        self._store.create(job_id, manifestation_id, segments)
        return find_job(self._store, job_id)

    def create_once(self, manifestation_id: str, key: str) -> tuple[Job, bool]:
        """As `create`, but once for each key, whoever else uses it at the same time; and whether it was made now.

        Raises `KeyTakenError` when the key is kept with a job of another text.
        """
        kept = self._find_kept(manifestation_id, key)
        if kept is not None:
            return find_job(self._store, kept), False
        job_id, segments = self._cut(manifestation_id)
        self._store.create_once(key, job_id, manifestation_id, segments)
        kept = self._find_kept(manifestation_id, key)
        if kept is None:
            raise TransientError(f"the job that was made with the key {key!r} was deleted meanwhile")
        return find_job(self._store, kept), kept == job_id

    def _find_kept(self, manifestation_id: str, key: str) -> str | None:
        found = self._store.find_key(key)
        if found is None:
            return None
        text, job_id = found
        if text != manifestation_id:
            raise KeyTakenError(f"was used before, for job {job_id} of the text {text!r}")
        return job_id

    def _cut(self, manifestation_id: str) -> tuple[str, list[tuple[str, int, int]]]:
        """A new job's id and its segments. Raises as `create`."""
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
        return job_id, _checked(job_id, manifestation_id, segments)

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
        return self._messages.send(job_id, on_sent, keep_going)

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

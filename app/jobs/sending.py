"""Sends the messages of a job that were never sent, several pages at a time.

Invariant: a segment is marked as sent only when SQS has taken its message, page by page; so a crash anywhere leaves the
rest to the next who sends, and at most the pages in hand are sent twice.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Protocol

from app.core.unsent import SpanFinder, UnsentSegment, with_spans
from app.db.jobs import PostgresJobs
from app.errors import OutageError, ProcessorError, TransientError
from app.outbox.messages import segment_message
from app.sqs.queue import Outgoing, QueueFacts

PAGE_SEGMENTS: Final = 100
"""Messages sent between two bookmarks: each page in hand may be sent twice after a crash, which does no harm."""
PAGES_AT_ONCE: Final = 4
"""Each waits for SQS most of the time."""
PAUSES_SECONDS: Final = (0.25, 0.5, 1.0, 2.0)
"""Before each new try of messages that SQS refused."""


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


@dataclass(frozen=True, slots=True)
class SentPage:
    """What became of one page of messages."""

    sent: int
    ready: int
    """How many had a span."""
    refused: Mapping[str, str]
    without_span: Sequence[str]
    lost: ProcessorError | None
    """What makes trying again useless."""


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

    def add(self, page: SentPage, on_sent: Callable[[int], None]) -> bool:
        """Count one more page; whether to go on: a queue that takes nothing of a page is not asked for more.

        Raises what the page was lost to.
        """
        self.without_span += page.without_span
        if page.sent:
            self.sent += page.sent
            on_sent(page.sent)
        if page.lost:
            raise page.lost
        self.refused.update(page.refused)
        return bool(page.sent) or not page.ready


class Dispatcher:
    """Sends and marks. Safe to share between threads, each with another job."""

    def __init__(
        self, store: PostgresJobs, queue: MessageQueue, graph: SpanFinder, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._store = store
        self._queue = queue
        self._graph = graph
        self._sleep = sleep

    def send(self, job_id: str, on_sent: Callable[[int], None], keep_going: Callable[[], bool]) -> Sending:
        """See `app.jobs.producer.Producer.send_unsent`."""
        sending = Sending()
        pages = self._unsent_pages(job_id, keep_going)
        # The first page by itself: a queue that takes nothing of it is not asked by several at once.
        for page in pages:
            if sending.add(self._send_page(page), on_sent):
                self._send_together(pages, sending, on_sent)
            break
        return sending

    def _unsent_pages(self, job_id: str, keep_going: Callable[[], bool]) -> Iterator[list[UnsentSegment]]:
        after: str | None = None
        while keep_going() and (page := self._store.list_unsent(job_id, after, PAGE_SEGMENTS)):
            after = page[-1].segment_id
            yield page

    def _send_together(
        self, pages: Iterator[list[UnsentSegment]], sending: Sending, on_sent: Callable[[int], None]
    ) -> None:
        """Several pages at a time, in turn, until one is not taken; what is in hand then is waited for and told."""
        in_hand: deque[Future[SentPage]] = deque()
        is_taken = True
        with ThreadPoolExecutor(PAGES_AT_ONCE, thread_name_prefix="sending") as pool:
            try:
                while is_taken and (page := next(pages, None)):
                    in_hand.append(pool.submit(self._send_page, page))
                    if len(in_hand) == PAGES_AT_ONCE:
                        is_taken = sending.add(in_hand.popleft().result(), on_sent)
            finally:
                lost = _add_all(sending, in_hand, on_sent)
        if lost:
            raise lost

    def _send_page(self, page: Sequence[UnsentSegment]) -> SentPage:
        """Send and mark. Raises `ProcessorError` when PostgreSQL is lost, or the graph where it is needed."""
        ready, bare = with_spans(page, self._graph, self._store.store_spans)
        refused, lost = self._send(ready)
        sent = [segment.task_id for segment in ready if segment.segment_id not in refused]
        if sent:
            self._store.mark_sent(sent)
        return SentPage(len(sent), len(ready), refused, [segment.segment_id for segment in bare], lost)

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


def _add_all(
    sending: Sending, pages: Iterable[Future[SentPage]], on_sent: Callable[[int], None]
) -> ProcessorError | None:
    """Count each of them, whatever became of the others; the first loss."""
    lost: ProcessorError | None = None
    for page in pages:
        try:
            sending.add(page.result(), on_sent)
        except ProcessorError as error:
            lost = lost or error
    return lost

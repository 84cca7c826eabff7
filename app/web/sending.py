"""Sends a job's messages behind the answer.

Invariant: what is not sent, for whatever reason, is logged and keeps its row unmarked, so that the workers' sweep sends
it; and one job is sent by one thread at a time.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock
from typing import Annotated, Final

from fastapi import Depends

from app.core.jobs import ConflictError
from app.errors import ProcessorError
from app.jobs.producer import Producer, Sending
from app.logs import fields, one_line

log = logging.getLogger(__name__)

JOBS_AT_ONCE: Final = 2
"""The others wait for their turn; each sends several messages at the same time."""


class BackgroundSender:
    """Threads that are made when they are first needed. Safe to share."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._stopped = Event()
        self._pool: ThreadPoolExecutor | None = None
        self._wanted: dict[str, bool] = {}
        """Jobs that wait or are being sent, and whether somebody has asked again since."""

    def send(self, producer: Producer, job_id: str) -> None:
        """Send what the job has not sent, soon; returns at once."""
        with self._lock:
            if job_id in self._wanted:
                self._wanted[job_id] = True
                return
            if self._pool is None:
                self._stopped = Event()
                self._pool = ThreadPoolExecutor(JOBS_AT_ONCE, thread_name_prefix="sending")
            self._wanted[job_id] = False
            self._pool.submit(self._send, producer, job_id, self._stopped)

    @property
    def is_closing(self) -> bool:
        """Nothing more is begun, unless somebody asks again."""
        return self._stopped.is_set()

    def close(self) -> None:
        """Finish the pages in hand and return; what is left is the sweep's."""
        with self._lock:
            pool, self._pool = self._pool, None
            self._stopped.set()
        if pool is not None:
            pool.shutdown()

    def _send(self, producer: Producer, job_id: str, stopped: Event) -> None:
        while True:
            _send_once(producer, job_id, stopped)
            with self._lock:
                if not self._wanted[job_id] or stopped.is_set():
                    del self._wanted[job_id]
                    return
                self._wanted[job_id] = False


def _send_once(producer: Producer, job_id: str, stopped: Event) -> None:
    sent: list[int] = []
    try:
        sending = producer.send_unsent(job_id, sent.append, keep_going=lambda: not stopped.is_set())
    except ConflictError:
        log.info("Job %s was cancelled before all of its messages were sent", job_id, extra=fields(job_id=job_id))
    except ProcessorError as error:
        _tell_left(job_id, sum(sent), str(error))
    except Exception:
        log.exception("Sending the messages of job %s failed; the workers' sweep sends them", job_id)
    else:
        if not sending.is_complete:
            _tell_left(job_id, sending.sent, _first_reason(sending))
        elif stopped.is_set():
            _tell_left(job_id, sending.sent, "this server was stopped")
        else:
            log.info("%d messages of job %s were sent", sending.sent, job_id, extra=fields(job_id=job_id))


def _first_reason(sending: Sending) -> str:
    return next(iter(sending.refused.values()), "segments without a known span")


def _tell_left(job_id: str, sent: int, reason: str) -> None:
    log.error(
        "Job %s is saved but not all of its messages could be sent, only %d: %s; the workers' sweep sends the rest"
        " after a quarter of an hour, and at once does: python -m app.jobs resume %s",
        job_id,
        sent,
        one_line(reason),
        job_id,
        extra=fields(job_id=job_id),
    )


_sender: Final = BackgroundSender()


def get_sender() -> BackgroundSender:
    """The process's one."""
    return _sender


Sender = Annotated[BackgroundSender, Depends(get_sender)]

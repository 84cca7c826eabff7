"""Receives for the lanes: whose turn it is to be parked in a long poll, and how a batch is filled.

Invariant: a single message wakes one lane and not all: lanes poll one after the other. A receive that is at least half
full tells of a backlog, and until it is worked off they poll at the same time; after a full one the same batch takes
what the next one finds, without waiting for anything. Every poll that is begun is known to whoever stops.
"""

import threading
import time
from typing import Final

from app.errors import OutageError, ProcessorError
from app.sqs.delivery import Delivery, read_delivery
from app.sqs.queue import SERVICE, Queue
from app.threads.gate import Gate
from app.threads.stopping import Stop
from app.worker.parts import Limits

TURN_SECONDS: Final = 0.2
"""How long a lane waits for its turn before it looks whether to stop."""


class Poller:
    """One for all lanes; each calls `receive`, and `end` once what came is in flight."""

    def __init__(self, queue: Queue, gate: Gate, limits: Limits) -> None:
        """`queue`: through a client whose read time-out fits a long poll."""
        self._queue = queue
        self._gate = gate
        self._limits = limits
        self._turn = threading.Lock()
        self._has_backlog = False
        self._begun: dict[threading.Thread, float] = {}

    def receive(self, stop: Stop) -> list[Delivery] | None:
        """A batch; None when it is another lane's turn, or nothing may be received now."""
        if self._has_backlog:
            return self._poll(stop)
        if not self._turn.acquire(timeout=TURN_SECONDS):
            return None
        try:
            return self._poll(stop) if self._gate.is_open else None
        finally:
            self._turn.release()

    def end(self) -> None:
        """The calling lane has what its poll brought."""
        self._begun.pop(threading.current_thread(), None)

    def under_way(self) -> list[float]:
        """When each poll began, on `time.monotonic()`, whose messages are not in flight yet."""
        return list(self._begun.values())

    def _poll(self, stop: Stop) -> list[Delivery] | None:
        self._begun[threading.current_thread()] = time.monotonic()
        if stop.is_set():  # looked at only now, so that whoever stops sees every poll that is begun
            return None
        limits = self._limits
        batch = self._ask(limits.wait_time_seconds)
        if batch is None:
            return None
        self._has_backlog = 2 * len(batch) >= limits.batch_size
        for receives in range(1, limits.receives_a_batch):
            if len(batch) < receives * limits.batch_size or stop.is_set():
                break
            batch += self._ask(wait_seconds=0) or ()
        return batch

    def _ask(self, wait_seconds: int) -> list[Delivery] | None:
        """One receive; None when SQS does not answer, for which the gate is closed."""
        limits = self._limits
        try:
            messages = self._queue.receive(limits.batch_size, wait_seconds, limits.visibility_timeout_seconds)
        except ProcessorError as error:
            self._has_backlog = False
            self._gate.close(SERVICE, error.reason if isinstance(error, OutageError) else str(error))
            return None
        received_at = time.monotonic()
        return [read_delivery(message, received_at) for message in messages]

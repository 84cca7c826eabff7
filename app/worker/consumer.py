"""`SimpleConsumer`, for code that builds the consumer itself and takes it from `app.main`.

Invariant: building one connects to nothing and reads no setting; the loop that it starts is the worker's own.
"""

import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from aws_sqs_consumer import Consumer, Message

from app.sqs.delivery import read_delivery
from app.threads.stopping import Signals, Stop
from app.worker.loop import EXIT_OK, Loop
from app.worker.wiring import Wanted, build_message_loop, build_segment_loop


class SimpleConsumer(Consumer):  # type: ignore[misc]  # the library is untyped
    """A consumer of the segment queue, with the constructor of `aws_sqs_consumer.Consumer`.

    `start()` returns when it was told to stop and all that was in flight is finished or given back. A subclass may
    override `handle_message(message)`: it is then called for each message, from one thread unless more were asked for.
    The message is deleted when it returns, before the next one is handled, and comes back when it raises.
    """

    def __init__(
        self,
        queue_url: str,
        region: str | None = None,
        sqs_client: Any = None,
        attribute_names: Sequence[str] = (),
        message_attribute_names: Sequence[str] = (),
        batch_size: int | None = None,
        wait_time_seconds: int | None = None,
        visibility_timeout_seconds: int | None = None,
        polling_wait_time_ms: int | None = None,
    ) -> None:
        """What is None comes from the settings when the consumer starts. Nothing is connected before that."""
        super().__init__(
            queue_url,
            region=region or "set at start",
            sqs_client=sqs_client or _MADE_AT_START,
            attribute_names=list(attribute_names),
            message_attribute_names=list(message_attribute_names),
            batch_size=10 if batch_size is None else batch_size,
            wait_time_seconds=20 if wait_time_seconds is None else wait_time_seconds,
            visibility_timeout_seconds=visibility_timeout_seconds,
            polling_wait_time_ms=50 if polling_wait_time_ms is None else polling_wait_time_ms,
        )
        self._wanted = Wanted(
            queue_url=queue_url,
            region=region,
            client=sqs_client,
            batch_size=batch_size,
            wait_time_seconds=wait_time_seconds,
            visibility_timeout_seconds=visibility_timeout_seconds,
            polling_wait_time_ms=polling_wait_time_ms,
        )
        self._stop = Stop()
        self._loop: Loop | None = None

    def handle_message(self, message: Message) -> None:
        """Process one message by the whole road and act on its outcome; for those who call it by hand.

        Nothing for a subclass that calls it from a `handle_message` of its own, as in the library.
        """
        if not self._handles_itself:
            self._built().handle([read_delivery(vars(message), time.monotonic())])

    def start(self) -> None:
        """Consume until told to stop. Exits the process with a code other than 0 when a lane hangs."""
        code = self.run()
        if code:
            sys.exit(code)

    def stop(self) -> None:
        """Ask it to stop, from any thread or signal handler."""
        self._running = False
        self._stop.set()

    def run(self) -> int:
        """Consume until told to stop; the exit code. Raises `ConfigurationError` when it can't even start."""
        self._running = True
        with Signals(self.stop):
            loop = self._built()
            return EXIT_OK if self._stop.is_set() else loop.run()

    @property
    def _handles_itself(self) -> bool:
        """Whether a subclass has its own `handle_message`."""
        return type(self).handle_message is not SimpleConsumer.handle_message

    def _built(self) -> Loop:
        if self._loop is None:
            if self._handles_itself:
                self._loop = build_message_loop(self._wanted, self.handle_message, self._stop)
            else:
                self._loop = build_segment_loop(self._wanted, self._stop)
        return self._loop


class _MadeAtStart:
    """Stands where the library wants a client, so that building a consumer connects to nothing."""


_MADE_AT_START: Final = _MadeAtStart()

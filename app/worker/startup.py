"""What has to be there before the first message is received.

Invariant: a service that does not answer yet is waited for, and said once for each reason; where waiting does not
help, it is a `ConfigurationError`, whatever else is waited for at the time.
"""

import logging
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from threading import Thread
from typing import Any, Final, Self

from app.errors import ConfigurationError, OutageError, ProcessorError, RefusedError
from app.threads.stopping import Stop

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 2.0


def persist[T](step: Callable[[], T], what: str, stop: Stop) -> T | None:
    """`step` again and again while its service does not answer, saying so when the reason changes; None on `stop`."""
    said = ""
    while not stop.is_set():
        try:
            result = step()
        except ConfigurationError:
            raise
        except RefusedError as error:
            raise ConfigurationError(f"{error.service} refuses: {error.reason}") from error
        except ProcessorError as error:
            reason = error.reason if isinstance(error, OutageError) else str(error)
            if reason != said:
                said = reason
                log.warning("Waiting for %s: %s", what, said)
            stop.wait(RETRY_SECONDS)
        else:
            if said:
                log.info("%s is there", what)
            return result
    return None


class SideBySide:
    """Steps that mostly wait for answers, each in a thread of its own from when it is begun; the context waits for all.

    When one raises, or the context itself is left by an error, the others wait no longer, and that is raised.
    """

    def __init__(self, stop: Stop) -> None:
        self._over = _Over(stop)
        self._begun: list[Future[Any]] = []

    def begin[T](self, step: Callable[[Stop], T]) -> Future[T]:
        """What `step` gives, in time. It is handed the stop that it has to heed, and keeps no process from ending."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(step(self._over))
            except BaseException as error:  # noqa: BLE001  (raised again where it is waited for)
                future.set_exception(error)

        self._begun.append(future)
        Thread(target=run, name="start", daemon=True).start()
        return future

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            wait(self._begun, return_when=FIRST_EXCEPTION)
        failed = [error for one in self._begun if one.done() and (error := one.exception()) is not None]
        if kind is not None or failed:
            self._over.set()
        if kind is None and failed:
            raise failed[0]


class _Over(Stop):
    """Also set when another is."""

    def __init__(self, other: Stop) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        """See `Stop`."""
        return super().is_set() or self._other.is_set()

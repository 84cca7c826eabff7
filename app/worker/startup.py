"""What has to be there before the first message is received.

Invariant: a service that does not answer yet is waited for, and said once for each reason; where waiting does not
help, it is a `ConfigurationError`, whatever else is waited for at the time.
"""

import logging
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from functools import partial
from threading import Thread
from typing import Any, Final

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


def begin[T](step: Callable[[], T]) -> Future[T]:
    """`step`, from now on in a thread of its own, which keeps no process from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(step())
        except BaseException as error:  # noqa: BLE001  (raised again where it is waited for)
            future.set_exception(error)

    Thread(target=run, name="start", daemon=True).start()
    return future


def at_once[T](first: Callable[[Stop], T], *others: Callable[[Stop], object], stop: Stop) -> T:
    """Side by side, as they mostly wait for answers; what `first` gives. When one raises, the others wait no longer.

    Each is handed the stop that it has to heed.
    """
    over = _Over(stop)
    leading = begin(partial(first, over))
    begun: list[Future[Any]] = [leading, *(begin(partial(other, over)) for other in others)]
    wait(begun, return_when=FIRST_EXCEPTION)
    for one in begun:
        if one.done() and (error := one.exception()) is not None:
            over.set()
            raise error
    return leading.result()


class _Over(Stop):
    """Also set when another is."""

    def __init__(self, other: Stop) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        """See `Stop`."""
        return super().is_set() or self._other.is_set()

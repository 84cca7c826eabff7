"""What has to be there before the first message is received.

Invariant: a service that does not answer yet is waited for, and said once for each reason; where waiting does not
help, it is a `ConfigurationError`.
"""

import logging
from collections.abc import Callable
from typing import Final

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

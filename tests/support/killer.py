"""``python -m tests.support.killer``: the real worker, in which walking a segment named ``killer-...`` ends it.

Invariant: nothing else differs from ``python -m app.main``. The end is a SIGKILL from within, as a crash in native code
or the system's out-of-memory killer would end it: no clean-up, and whatever else the process holds dies with it. It
comes right after the published log line that says a segment is being processed, which every design of the worker has
to pass, and which is then the last one in its log: it is written before the end.
"""

import logging
import os
import signal
import sys
from typing import Final

from app import main

PREFIX: Final = "killer-"
LAST_WORDS: Final = f"Processing segment {PREFIX}"
"""In the log of a process that ended so, and in no other."""


class _Killer(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if record.getMessage().startswith(LAST_WORDS):
            logging.getLogger().handle(record)
            for handler in logging.getLogger().handlers:
                handler.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return True


def arm() -> None:
    """From here on such a segment ends this process; needs ``LOG_LEVEL`` at INFO, the default."""
    logging.getLogger("app.tasks").addFilter(_Killer())


if __name__ == "__main__":
    arm()
    code = main.main()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)

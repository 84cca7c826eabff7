"""``python -m tests.killer``: the real worker, in which walking a segment named ``killer-...`` ends the process.

Invariant: nothing else differs from ``python -m app.main``. The end is a SIGKILL from within, as a crash in native code
or the system's out-of-memory killer would end it: no clean-up, and whatever else the process holds dies with it. It
comes at the published log line that says a segment is being processed, which every design of the worker has to pass.
"""

import logging
import os
import re
import signal
import sys
from typing import Final

from app import main

PREFIX: Final = "killer-"
_PROCESSING: Final = re.compile(rf"Processing segment {PREFIX}")


class _Killer(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if _PROCESSING.match(record.getMessage()):
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

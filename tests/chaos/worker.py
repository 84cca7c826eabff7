"""``python -m tests.chaos.worker RECEIVES``: the real worker with a sweep that is not as patient as a real one's.

Invariant: nothing else differs from ``python -m app.main``, but that a killer of the load ends it. What is received is
noted in the file RECEIVES, a line a message (see `tests.chaos.receives`), written at once, so that a SIGKILL loses
none.
"""

import functools
import logging
import os
import sys
import threading
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from app import main
from app.outbox.pace import FEWEST_RESENT
from app.outbox.sweep import Sweep, SweepReport
from app.sqs.delivery import Delivery, read_delivery
from app.worker import poller, wiring
from app.worker.housekeeper import Housekeeper
from tests.chaos import receives
from tests.chaos.surroundings import RESEND_AFTER_SECONDS, SWEEP_SECONDS
from tests.support import killer


class ImpatientSweep(Sweep):
    """Re-sends what nobody works on after seconds rather than a quarter of an hour."""

    def run(
        self, job_id: str | None = None, after_seconds: float | None = RESEND_AFTER_SECONDS, limit: int = FEWEST_RESENT
    ) -> SweepReport:
        """See `app.outbox.sweep.Sweep`."""
        return super().run(job_id, after_seconds, limit)


def note_receives(path: str) -> None:
    """Write down each receive, at its beginning."""
    notes = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    lock = threading.Lock()

    def noted(message: Mapping[str, Any], received_at: float) -> Delivery:
        delivery = read_delivery(message, received_at)
        with lock:
            os.write(notes, receives.line_of(delivery).encode())
        return delivery

    put_in(poller, read_delivery=noted)


def put_in(module: ModuleType, **others: object) -> None:
    """Others in place of what the module calls by these names, all of which it must have."""
    assert others.keys() <= vars(module).keys(), f"{module.__name__} knows not all of {[*others]}"
    vars(module).update(others)


if __name__ == "__main__":
    note_receives(sys.argv[1])
    killer.arm()
    put_in(wiring, Sweep=ImpatientSweep, Housekeeper=functools.partial(Housekeeper, every_seconds=SWEEP_SECONDS))
    code = main.main()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)

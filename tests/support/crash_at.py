"""``python -m tests.support.crash_at BOUNDARY``: the real worker, which dies without any clean-up when it gets there.

Invariant: the worker's own code runs unchanged up to the boundary; then the process is gone, as by SIGKILL.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

from app import main
from app.db import results
from app.db.claims import PostgresClaims
from app.db.outbox import PostgresOutbox
from app.db.results import PostgresResults
from app.outbox.relay import Relay
from app.sqs.queue import Queue
from app.worker import wiring

EXIT_CRASHED = 77


def die_after(owner: Any, method: str, happened: Callable[[Any], bool] = lambda _: True) -> None:
    """Die when `owner.method` has returned and what it returned satisfies `happened`."""
    original = getattr(owner, method)

    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        answer = original(*arguments, **keywords)
        if happened(answer):
            os._exit(EXIT_CRASHED)
        return answer

    setattr(owner, method, wrapped)


def die_before_commit() -> None:
    """Run the settling inside a transaction that is never committed."""

    def settle(self: PostgresResults, endings: Any) -> Any:
        with self._database.pool.lend() as connection, connection.cursor() as cursor:
            cursor.execute("BEGIN; " + results.SETTLE, results._parameters(endings))
            os._exit(EXIT_CRASHED)

    PostgresResults.settle = settle  # type: ignore[method-assign]


def die_after_sending_completion() -> None:
    """Die when the completion message is on its queue and not yet marked."""
    original = PostgresOutbox.mark_sent

    def mark_sent(self: PostgresOutbox, announcements: Any) -> None:
        if announcements:
            os._exit(EXIT_CRASHED)
        original(self, announcements)

    PostgresOutbox.mark_sent = mark_sent  # type: ignore[method-assign]


BOUNDARIES: dict[str, Callable[[], None]] = {
    "received": lambda: die_after(Queue, "receive", bool),
    "claimed": lambda: die_after(PostgresClaims, "claim"),
    "walked": lambda: die_after(wiring, "walk_together"),
    "before-commit": die_before_commit,
    "committed": lambda: die_after(PostgresResults, "settle"),
    "job-committed": lambda: die_after(PostgresResults, "settle", lambda settled: bool(settled.announcements)),
    "completion-sent": die_after_sending_completion,
    "completion-marked": lambda: die_after(Relay, "send", bool),
    "deleted": lambda: die_after(Queue, "delete"),
}


if __name__ == "__main__":
    BOUNDARIES[sys.argv[1]]()
    sys.exit(main.main())

"""What the doctor looks at in each service, and what he says of it.

Invariant: each function looks at one service through what it is handed, only reads, and says for everything that is
wrong what mends it. What the service raises passes: whoever calls tells that.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from app.db.checks import expect_tables, ping
from app.db.claims import PostgresClaims
from app.db.examining import missing_rights, read_level
from app.db.postgres import Database
from app.db.results import PostgresResults
from app.sqs.queue import Queue

FEWEST_RECEIVES: Final = 10
"""Of the redrive policy: holding, waiting and outages use up receives (docs/formats.md, "Failure")."""
GRANT: Final = "GRANT {right} ON {tables} TO the user of POSTGRES_URL"
MIGRATE: Final = "run: alembic upgrade head"
SENDING: Final = ("sqs:SendMessage",)
WORKING: Final = ("sqs:SendMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility")


@dataclass(frozen=True, slots=True)
class Finding:
    """`about`: a service or a setting; `cure`: what mends what is wrong, in one line."""

    about: str
    what: str
    cure: str | None = None

    @property
    def is_wrong(self) -> bool:
        """Somebody has to do something."""
        return self.cure is not None


def look_at_postgres(database: Database, head: str | None) -> Iterator[Finding]:
    """Whether it takes writes, is migrated to `head`, and lets us work. Raises `ProcessorError`."""
    about = "PostgreSQL"
    ping(database)
    yield Finding(about, "answers and takes writes")
    level = read_level(database)
    if level != head:
        yield Finding(about, f"the migrations' level is {level or 'none at all'}, this code needs {head}", MIGRATE)
        return
    yield Finding(about, f"the migrations' level is {level}")
    missing = missing_rights(database)
    for right, tables in missing.items():
        names = ", ".join(tables)
        yield Finding(about, f"no right to {right} on {names}", GRANT.format(right=right, tables=names))
    if not missing:
        expect_tables(database, PostgresClaims(database, "doctor", 1), PostgresResults(database))
        yield Finding(about, "the tables fit, and all rights are there")


def look_at_input_queue(queue: Queue, visibility_seconds: int, dead_letters_url: str | None) -> Iterator[Finding]:
    """Its kind, visibility and redrive policy. Raises `ProcessorError`."""
    about, values = "SQS_QUEUE_URL", queue.attributes()
    yield Finding(about, f"the queue {queue.name} answers")
    if queue.is_fifo or values.get("FifoQueue") == "true":
        yield Finding(
            about, f"{queue.name} is a FIFO queue, which hands out one segment at a time", "name a standard queue"
        )
    yield _visibility(about, queue.name, int(values.get("VisibilityTimeout", 30)), visibility_seconds)
    yield from _redrive_policy(about, queue.name, values, dead_letters_url)
    yield from look_at_rights(about, queue, WORKING)


def _visibility(about: str, name: str, has_seconds: int, wanted_seconds: int) -> Finding:
    if has_seconds >= wanted_seconds:
        return Finding(about, f"messages stay hidden for {has_seconds} s, no less than the worker's {wanted_seconds} s")
    return Finding(
        about,
        f"the visibility time-out of {name} is {has_seconds} s, less than SQS_VISIBILITY_TIMEOUT_SECONDS"
        f" ({wanted_seconds}): who receives without saying how long gives the message to others too soon",
        f"set VisibilityTimeout of the queue to {wanted_seconds}",
    )


def _redrive_policy(
    about: str, name: str, values: Mapping[str, str], dead_letters_url: str | None
) -> Iterator[Finding]:
    policy = json.loads(values.get("RedrivePolicy") or "{}")
    if "maxReceiveCount" not in policy:
        yield Finding(
            about,
            f"{name} has no redrive policy: a message that ends its worker again and again comes back for ever",
            f"set RedrivePolicy of the queue: the ARN of a dead-letter queue, maxReceiveCount {FEWEST_RECEIVES}",
        )
        return
    count, target = int(policy["maxReceiveCount"]), str(policy.get("deadLetterTargetArn", "")).rsplit(":", 1)[-1]
    if count < FEWEST_RECEIVES:
        yield Finding(
            about,
            f"the redrive policy of {name} gives a message up after {count} receives, and receives are not attempts:"
            " outages and waiting use them up",
            f"set maxReceiveCount in RedrivePolicy to {FEWEST_RECEIVES} or more",
        )
    if dead_letters_url and target != dead_letters_url.rsplit("/", 1)[-1]:
        yield Finding(
            about,
            f"the redrive policy of {name} moves messages to {target}, which SQS_DEAD_LETTER_QUEUE_URL does not name:"
            " nobody sees them",
            "name the same queue in both",
        )
    else:
        yield Finding(about, f"after {count} receives the redrive policy moves a message to {target}")


def look_at_other_queue(about: str, queue: Queue) -> Iterator[Finding]:
    """One that a worker only sends to. Raises `ProcessorError`."""
    queue.attributes()
    yield Finding(about, f"the queue {queue.name} answers")
    yield from look_at_rights(about, queue, SENDING)


def look_at_rights(about: str, queue: Queue, wanted: tuple[str, ...]) -> Iterator[Finding]:
    """What we are refused on it, as far as empty calls tell. Raises `ProcessorError`."""
    for right, reason in queue.refused_rights(wanted).items():
        yield Finding(about, f"no right {right}: {reason}", f"allow {right} on {queue.name} (README.md, AWS rights)")

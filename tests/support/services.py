"""The tests' own queues, databases and environments on the real services."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from app.sqs.queue import Queue, make_client
from devstack.stack import Stack
from tests.support.worker import wait_until

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Queues:
    """A test's own queues; the input queue has a redrive policy of `max_receive_count` to the dead letters."""

    segments: Queue
    completed: Queue
    dead_letters: Queue


def base_environment() -> dict[str, str]:
    """What a subprocess needs of this process's environment."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "JDK_JAVA_OPTIONS")
    return {name: os.environ[name] for name in kept if name in os.environ}


@cache
def environment_of(stack: Stack) -> Mapping[str, str]:
    """What ``stack.env()`` says, asked once: it asks each of its services, which are busy while tests run."""
    return MappingProxyType(stack.env())


def sqs_client(stack: Stack):  # type: ignore[no-untyped-def]
    """A client of the stack's SQS."""
    environment = environment_of(stack)
    return make_client(
        environment["AWS_REGION"],
        wait_seconds=1,
        endpoint_url=environment["AWS_ENDPOINT_URL_SQS"],
        access_key_id=environment["AWS_ACCESS_KEY_ID"],
        secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )


def migrate(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run alembic (default: ``upgrade head``) on the database at `url`."""
    command = [sys.executable, "-m", "alembic", *(arguments or ("upgrade", "head"))]
    done = subprocess.run(
        command, cwd=ROOT, env={**base_environment(), "POSTGRES_URL": url}, capture_output=True, text=True, check=False
    )
    if not arguments and done.returncode:
        raise AssertionError(done.stderr)
    return done


def receive_all(queue: Queue, count: int) -> list[Any]:
    messages: list[Any] = []

    def enough() -> bool:
        messages.extend(queue.receive(10, 1, 60))
        return len(messages) >= count

    wait_until(enough, f"{count} messages on {queue.name}")
    return messages

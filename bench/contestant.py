"""What the benchmark's own contestants have in common: their environment, and the loop that runs one.

Invariant: a contestant is told everything by the worker's published environment variables, so that the
benchmark starts each of them, and the worker, in the same way and behind the same proxies.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Event
from typing import Protocol, Self


@dataclass(frozen=True, slots=True, repr=False)
class Environment:
    """The services; boto3 takes its credentials and its endpoint from the process's environment by itself."""

    postgres_url: str
    neo4j_uri: str
    neo4j_auth: tuple[str, str]
    dragonfly_url: str | None
    aws_region: str
    queue_url: str
    completed_queue_url: str

    @classmethod
    def read(cls, variables: Mapping[str, str] = os.environ) -> Self:
        """KeyError for what is missing."""
        return cls(
            postgres_url=variables["POSTGRES_URL"],
            neo4j_uri=variables["NEO4J_URI"],
            neo4j_auth=(variables.get("NEO4J_USER", "neo4j"), variables["NEO4J_PASSWORD"]),
            dragonfly_url=variables.get("DRAGONFLY_URL") or None,
            aws_region=variables.get("AWS_REGION", "us-east-1"),
            queue_url=variables["SQS_QUEUE_URL"],
            completed_queue_url=variables["SQS_COMPLETED_QUEUE_URL"],
        )


class Contestant(Protocol):
    """A worker that is polled."""

    def poll(self) -> int:
        """Receive once, see what came through, and return how many segments that were."""


def run(contestant: Contestant, stop: Event) -> int:
    """Poll until `stop` is set; how many segments were done."""
    done = 0
    while not stop.is_set():
        done += contestant.poll()
    return done


def main(make: Callable[[Environment], AbstractContextManager[Contestant]]) -> None:
    """Run a contestant until SIGTERM or SIGINT; one line of JSON when it is ready, one when it has ended."""
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with make(Environment.read()) as contestant:
        print(json.dumps({"ready": True}), flush=True)
        began = time.monotonic()
        done = run(contestant, stop)
        print(json.dumps({"segments": done, "seconds": time.monotonic() - began}), flush=True)

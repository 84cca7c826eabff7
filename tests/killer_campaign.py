"""``python -m tests.killer_campaign --segments 499 --workers 2 --runs 10``: one killer among many, again and again.

Exit code 0 when each run ended with every good segment COMPLETED and the killer FAILED, 1 when one did not. Slower to
tell than `tests/acceptance/test_killer.py`, which makes one such run: it shows that it was not luck, and at any size.
"""

import argparse
import random
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

import neo4j

from app.sqs.queue import Queue
from devstack.families import empty_graph, load_family, make_constraints
from devstack.stack import Stack
from tests.support import killer_job
from tests.support.endstate import is_over
from tests.support.engine import Engine
from tests.support.killer_job import Found, KillerJob
from tests.support.services import base_environment, migrate, sqs_client
from tests.support.stacks import reserve
from tests.support.supervisor import Supervisor
from tests.support.worker import wait_until

PREFIX: Final = "killer"
QUIET_SECONDS: Final = 120.0
"""Beside what the segments take: the killer's deaths, one visibility each, and the work that shared them."""
SLOWEST_SEGMENTS_A_SECOND: Final = 20.0
MOST_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Options:
    """See ``python -m tests.killer_campaign --help``."""

    segments: int
    workers: int
    runs: int
    max_attempts: int
    visibility_seconds: int
    seed: int


@dataclass(frozen=True, slots=True)
class Arena:
    """What one run has to itself."""

    engine: Engine
    segments: Queue
    environment: dict[str, str]


def main() -> int:
    """Read the options, run, report."""
    parser = argparse.ArgumentParser(prog="python -m tests.killer_campaign", description=__doc__)
    parser.add_argument("--segments", type=int, default=499, help="good ones, beside the killer (default: 499)")
    parser.add_argument("--workers", type=int, default=2, help="started again as soon as they die (default: 2)")
    parser.add_argument("--runs", type=int, default=10, help="one after the other (default: 10)")
    parser.add_argument("--max-attempts", type=int, default=5, help="MAX_ATTEMPTS of the workers (default: 5)")
    parser.add_argument("--visibility", type=int, default=5, help="SQS_VISIBILITY_TIMEOUT_SECONDS (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="decides where the killers stand (default: 0)")
    given = parser.parse_args()
    options = Options(given.segments, given.workers, given.runs, given.max_attempts, given.visibility, given.seed)
    with reserve(PREFIX) as name, _standing(Stack(name=name, say=lambda _: None)) as stack:
        held = [_run(stack, options, number) for number in range(options.runs)]
    print(f"{sum(held)} of {options.runs} runs as they should be")
    return 0 if all(held) else 1


@contextmanager
def _standing(stack: Stack) -> Iterator[Stack]:
    """Up, with the example's family in the graph; down at the end."""
    with ExitStack() as closing:
        closing.callback(stack.down)
        stack.up()
        environment = stack.env()
        auth = (environment["NEO4J_USER"], environment["NEO4J_PASSWORD"])
        with neo4j.GraphDatabase.driver(environment["NEO4J_URI"], auth=auth) as driver:
            empty_graph(driver)
            make_constraints(driver)
            load_family(driver, killer_job.example())
        yield stack


@contextmanager
def _arena(stack: Stack, options: Options, number: int) -> Iterator[Arena]:
    """A database and queues that nobody has used."""
    name = f"{PREFIX}_{number}"
    stack.drop_database(name)
    url = stack.make_database(name)
    migrate(url)
    client = sqs_client(stack)
    for old in client.list_queues(QueueNamePrefix=f"{PREFIX}-").get("QueueUrls", []):
        client.delete_queue(QueueUrl=old)
    dead = stack.make_queue(f"{PREFIX}-{number}-dead")
    segments = stack.make_queue(f"{PREFIX}-{number}", dead_letter_queue=dead)
    engine = Engine(url, pool_size=2)
    try:
        yield Arena(
            engine=engine,
            segments=Queue(client, segments),
            environment={
                **base_environment(),
                **stack.env(),
                "POSTGRES_URL": url,
                "SQS_QUEUE_URL": segments,
                "SQS_COMPLETED_QUEUE_URL": stack.make_queue(f"{PREFIX}-{number}-completed"),
                "SQS_DEAD_LETTER_QUEUE_URL": dead,
                "SQS_VISIBILITY_TIMEOUT_SECONDS": str(options.visibility_seconds),
                "MAX_ATTEMPTS": str(options.max_attempts),
            },
        )
    finally:
        engine.dispose()
        stack.drop_database(name)


def _run(stack: Stack, options: Options, number: int) -> bool:
    """Whether it ended as it should; one line about it."""
    killer_at = random.Random(f"{options.seed} {number}").randrange(options.segments)
    with _arena(stack, options, number) as arena:
        job = killer_job.make(arena.engine, arena.segments, options.segments, {killer_at})
        began = time.monotonic()
        with Supervisor(options.workers, arena.environment, "-m", "tests.support.killer") as workers:
            ended = _await_end(arena, job, options)
            seconds, deaths = time.monotonic() - began, len(workers.ended)
            workers.stop()
        found = killer_job.judge(arena.engine, job, options.max_attempts)
    _say(f"run {number + 1}", found, f"{seconds:.0f} s, {deaths} deaths" + ("" if ended else ", not ended in time"))
    return not found.problems


def _await_end(arena: Arena, job: KillerJob, options: Options) -> bool:
    limit_seconds = QUIET_SECONDS + options.segments / SLOWEST_SEGMENTS_A_SECOND
    limit_seconds += 3 * options.max_attempts * options.visibility_seconds
    try:
        wait_until(lambda: is_over(arena.engine, job.job_id), "the job to end", limit_seconds)
        wait_until(lambda: not arena.segments.facts().messages, "every message to be dealt with", limit_seconds)
    except AssertionError:
        return False
    return True


def _say(run: str, found: Found, how: str) -> None:
    statuses = ", ".join(f"{count:,} {status}" for status, count in sorted(found.statuses.items()))
    charged = sum(count for attempts, count in found.attempts.items() if attempts > 1)
    print(f"{run}: {how}; {statuses}; {charged} good ones charged for their neighbour", flush=True)
    for problem in found.problems[:MOST_SHOWN]:
        print(f"  {problem}", flush=True)
    if len(found.problems) > MOST_SHOWN:
        print(f"  and {len(found.problems) - MOST_SHOWN} more", flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""What a run stands on: the benchmark's own services, and for each run a database and queues that nobody has used.

Invariant: contestants are told everything by the environment that they are given: no `.env` and no setting of the
machine reaches them. The harness itself goes straight to the services, past the proxies.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import boto3
import neo4j
import psycopg2
import redis
from psycopg2 import sql

from devstack.proxy import Proxy, moved
from devstack.stack import Stack

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from psycopg2.extensions import connection as Connection

ROOT = Path(__file__).resolve().parent.parent
VARIABLES = {
    "postgres": "POSTGRES_URL",
    "neo4j": "NEO4J_URI",
    "cache": "DRAGONFLY_URL",
    "sqs": "AWS_ENDPOINT_URL_SQS",
}
SERVICES = (*VARIABLES,)
QUEUES = ("SQS_QUEUE_URL", "SQS_COMPLETED_QUEUE_URL", "SQS_DEAD_LETTER_QUEUE_URL")
PREFIX = "bench"
TEMPLATE = f"{PREFIX}_template"
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")


class BenchError(Exception):
    """What went wrong, for a person."""


@dataclass(frozen=True, slots=True)
class Arena:
    """One run's own ground. `environment`: a contestant's; the rest leads past the proxies."""

    environment: Mapping[str, str]
    postgres: "Connection"
    sqs: "SQSClient"
    queue_url: str
    proxies: Mapping[str, Proxy]


class Ground:
    """The stack, up, with a migrated template database. Made by `open`."""

    def __init__(self, stack: Stack, environment: Mapping[str, str], driver: neo4j.Driver) -> None:
        self.environment = environment
        self.driver = driver
        self._stack = stack
        self._numbers = count()
        self._admin_url = environment["POSTGRES_URL"]
        self.sqs: SQSClient = boto3.client(
            "sqs",
            region_name=environment["AWS_REGION"],
            endpoint_url=environment["AWS_ENDPOINT_URL_SQS"],
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        )

    @classmethod
    @contextmanager
    def open(cls, stack: Stack) -> Iterator[Self]:
        """Start what is not running. The services stay up, and the graph stays loaded, at the end."""
        stack.up()
        environment = stack.env()
        auth = (environment["NEO4J_USER"], environment["NEO4J_PASSWORD"])
        with neo4j.GraphDatabase.driver(
            environment["NEO4J_URI"], auth=auth, notifications_min_severity="OFF"
        ) as driver:
            ground = cls(stack, environment, driver)
            ground._remove_leftovers()
            _migrate(stack.make_database(TEMPLATE))
            yield ground

    def server_pids(self) -> dict[str, int]:
        """The main process of each service."""
        return {status.name: status.pid for status in self._stack.status() if status.pid is not None}

    def flush_cache(self) -> None:
        """Nothing is cached in Dragonfly's stand-in from here on."""
        with closing(redis.Redis.from_url(self.environment["DRAGONFLY_URL"])) as cache:
            cache.flushall()

    def cache_info(self) -> Mapping[str, Any]:
        """What the cache says of itself."""
        with closing(redis.Redis.from_url(self.environment["DRAGONFLY_URL"])) as cache:
            return dict(cache.info())

    @contextmanager
    def admin(self) -> "Iterator[Connection]":
        """A superuser's connection, each statement a transaction."""
        with closing(psycopg2.connect(self._admin_url)) as connection:
            connection.autocommit = True
            yield connection

    @contextmanager
    def arena(self, latencies_ms: Mapping[str, float] | None = None) -> Iterator[Arena]:
        """Fresh database, queues and an empty cache; with `latencies_ms` a proxy before each service, 0 to count only.

        All of it is gone at the end.
        """
        name = f"{PREFIX}_{os.getpid()}_{next(self._numbers)}"
        with ExitStack() as stack:
            url = stack.enter_context(self._database(name))
            queues = stack.enter_context(self._queues(name))
            direct = {**self.environment, "POSTGRES_URL": url, **queues}
            proxies = {
                service: stack.enter_context(Proxy.before(direct[VARIABLES[service]], latency_ms / 1000))
                for service, latency_ms in (latencies_ms or {}).items()
            }
            connection = stack.enter_context(closing(psycopg2.connect(url)))
            connection.autocommit = True
            self.flush_cache()
            yield Arena(_through(direct, proxies), connection, self.sqs, queues["SQS_QUEUE_URL"], proxies)

    @contextmanager
    def _database(self, name: str) -> Iterator[str]:
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        with self.admin() as admin, admin.cursor() as cursor:
            cursor.execute(statement.format(sql.Identifier(name), sql.Identifier(TEMPLATE)))
        try:
            yield f"{self._admin_url.rsplit('/', 1)[0]}/{name}"
        finally:
            self._stack.drop_database(name)

    @contextmanager
    def _queues(self, name: str) -> Iterator[dict[str, str]]:
        dead = self._stack.make_queue(f"{name}-dead")
        urls = (
            self._stack.make_queue(name, dead_letter_queue=dead),
            self._stack.make_queue(f"{name}-completed"),
            dead,
        )
        try:
            yield dict(zip(QUEUES, urls, strict=True))
        finally:
            for url in urls:
                self.sqs.delete_queue(QueueUrl=url)

    def _remove_leftovers(self) -> None:
        """Of a run that was killed."""
        with self.admin() as admin, admin.cursor() as cursor:
            cursor.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", (f"{PREFIX}_",))
            names = [row[0] for row in cursor]
        for name in names:
            self._stack.drop_database(name)
        for url in self.sqs.list_queues(QueueNamePrefix=f"{PREFIX}_").get("QueueUrls", []):
            self.sqs.delete_queue(QueueUrl=url)


def base_environment() -> dict[str, str]:
    """What a process of ours needs of this process's environment."""
    return {
        **{name: os.environ[name] for name in KEPT if name in os.environ},
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }


def _migrate(url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=ROOT,
        env={**base_environment(), "POSTGRES_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"`alembic upgrade head` failed:\n{done.stderr}")


def _through(direct: Mapping[str, str], proxies: Mapping[str, Proxy]) -> dict[str, str]:
    """The environment of a contestant that reaches each service by its proxy, where there is one."""
    environment = {**base_environment(), **direct}
    for service, proxy in proxies.items():
        names = (VARIABLES[service], *(QUEUES if service == "sqs" else ()))
        environment.update({name: moved(direct[name], proxy.port) for name in names})
    return environment

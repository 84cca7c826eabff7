"""The faults: which there are, when they come, and how each is done and undone.

Invariant: the plan follows from the seed alone. No two faults are on the same target at once (the later one is
skipped, and counted as such), each undoes itself, and when `finish` returns all of them have.
"""

import contextlib
import os
import pickle
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis
from sqlalchemy.exc import SQLAlchemyError

from devstack.errors import DevstackError
from tests.chaos.crew import Crew
from tests.chaos.surroundings import BASE_LATENCY_SECONDS, SERVICES, VISIBILITY_SECONDS, Surroundings

SHORTEST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 4.0

WEIGHTS: Final = {
    "worker SIGKILL": 22,
    "worker SIGKILL all": 3,
    "worker SIGKILL all, again and again": 3,
    "worker SIGTERM": 8,
    "worker SIGTERM twice": 2,
    "worker SIGSTOP past its lease": 14,
    "worker SIGSTOP briefly": 5,
    "postgres restarted": 4,
    "postgres killed": 3,
    "postgres connections ended": 8,
    "postgres tables locked": 4,
    "operator locks a job's row": 6,
    "neo4j restarted": 1,
    "neo4j killed": 1,
    "cache killed": 3,
    "cache emptied": 5,
    "cache filled with rubbish": 6,
    "sqs restarted": 3,
    "sqs killed": 2,
    **{f"{service} slow": 4 for service in SERVICES},
    **{f"{service} cut": 4 for service in SERVICES},
    **{f"{service} black hole": 3 for service in SERVICES},
}
SECONDS: Final = {
    "postgres restarted": (0.0, 15.0),
    "postgres cut": (0.1, 15.0),
    "restarted": (0.0, 3.0),
    "killed": (0.0, 3.0),
    "locked": (1.0, 12.0),
    "slow": (3.0, 12.0),
    "cut": (0.1, 5.0),
    "hole": (1.0, 6.0),
    "lease": (VISIBILITY_SECONDS + 1.0, VISIBILITY_SECONDS + 8.0),
    "briefly": (0.5, 4.0),
    "twice": (0.05, 1.0),
    "again": (4.0, 12.0),
    "row": (1.0, 20.0),
}
"""By the whole name of a fault, or by its last word. Some outages of PostgreSQL outlast a lease."""
BETWEEN_KILLS_SECONDS: Final = (0.2, 4.0)
"""A start takes about as long: some die before they have received anything, some with all hands full."""
LOCK_A_JOB: Final = """
BEGIN;
SELECT 1 FROM root_job
WHERE job_id = (
    SELECT job_id FROM root_job WHERE status IN ('QUEUED', 'IN_PROGRESS') ORDER BY random() LIMIT 1
)
FOR UPDATE
"""
SLOW_SECONDS: Final = {"postgres": (0.1, 0.6), "neo4j": (0.1, 1.5), "cache": (0.1, 2.0), "sqs": (0.1, 1.0)}


@dataclass(frozen=True, slots=True)
class Fault:
    """A planned fault; `seconds` it lasts, `slot` is the worker, `seed` is for what it draws itself."""

    at: float
    kind: str
    slot: int
    seconds: float
    seed: int

    @property
    def target(self) -> str:
        """What no other fault may be on."""
        first = self.kind.split()[0]
        return f"worker {self.slot}" if first == "worker" else first


@dataclass(frozen=True, slots=True)
class Happened:
    """A fault as it was, by the wall clock."""

    fault: Fault
    began: float
    ended: float


def plan(seed: int, seconds: float, workers: int, only: Sequence[str] = ()) -> list[Fault]:
    """The faults of a run in order."""
    rng = random.Random(f"faults {seed}")
    weights = {kind: weight for kind, weight in WEIGHTS.items() if not only or kind.startswith(tuple(only))}
    faults: list[Fault] = []
    at = rng.uniform(1.0, LONGEST_PAUSE_SECONDS)
    while at < seconds:
        kind = rng.choices(list(weights), list(weights.values()))[0]
        shortest, longest = SECONDS.get(kind) or SECONDS.get(kind.split()[-1], (0.0, 0.0))
        faults.append(Fault(at, kind, rng.randrange(workers), rng.uniform(shortest, longest), rng.randrange(1 << 30)))
        at += rng.uniform(SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
    return faults


class Tormentor:
    """Carries out a plan, a thread for each fault."""

    def __init__(self, around: Surroundings, crew: Crew, faults: Sequence[Fault]) -> None:
        self.happened: list[Happened] = []
        self.skipped: Counter[str] = Counter()
        self.errors: list[str] = []
        self._around = around
        self._crew = crew
        self._faults = faults
        self._stop = threading.Event()
        self._busy: set[str] = set()
        self._servers = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="tormentor", daemon=True)
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin; the plan's time runs from now."""
        self._thread.start()

    def finish(self) -> None:
        """Undo what is being done, and see to it that every server runs and every network is whole."""
        self._stop.set()
        for thread in (self._thread, *self._threads):
            thread.join(150)
            if thread.is_alive():
                self.errors.append(f"{thread.name} hangs")
        self._around.stack.up()
        self._around.heal()
        self._crew.tell_all("SIGCONT")

    def _run(self) -> None:
        began = time.monotonic()
        for fault in self._faults:
            if self._stop.wait(max(0.0, began + fault.at - time.monotonic())):
                return
            if fault.target in self._busy or self._is_mercy(fault):
                self.skipped[fault.kind] += 1
                continue
            self._busy.add(fault.target)
            thread = threading.Thread(target=self._do, args=(fault,), name=fault.kind, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _is_mercy(self, fault: Fault) -> bool:
        """A worker that is still starting is hit one time in eight only: else nothing would run on a slow machine."""
        return fault.target.startswith("worker") and bool(fault.seed % 8) and not self._crew.listens(fault.slot)

    def _do(self, fault: Fault) -> None:
        began = time.time()
        try:
            self._step(fault)()
        except Exception as error:
            self.errors.append(f"{fault.kind}: {type(error).__name__}: {error}")
        finally:
            self.happened.append(Happened(fault, began, time.time()))
            self._busy.discard(fault.target)

    def _step(self, fault: Fault) -> Callable[[], None]:
        who, what = fault.kind.split(maxsplit=1)
        match what:
            case "slow":
                return lambda: self._slow(who, fault)
            case "cut":
                return lambda: self._network(who, self._around.proxies[who].cut, fault.seconds)
            case "black hole":
                return lambda: self._network(who, self._around.proxies[who].black_hole, fault.seconds)
            case "restarted":
                return lambda: self._restart(who, self._around.stack.stop, fault.seconds)
            case "killed":
                return lambda: self._restart(who, self._around.stack.kill, fault.seconds)
            case _:
                return lambda: self._special(what, fault)

    def _special(self, what: str, fault: Fault) -> None:
        match what:
            case "SIGKILL":
                self._crew.tell(fault.slot, "SIGKILL")
            case "SIGKILL all":
                self._crew.tell_all("SIGKILL")
            case "SIGKILL all, again and again":
                self._kill_all_again_and_again(fault.seconds, random.Random(fault.seed))
            case "SIGTERM":
                self._crew.tell(fault.slot, "SIGTERM")
            case "SIGTERM twice":
                self._crew.tell(fault.slot, "SIGTERM")
                self._stop.wait(fault.seconds)
                self._crew.tell(fault.slot, "SIGTERM")
            case "SIGSTOP past its lease" | "SIGSTOP briefly":
                self._crew.tell(fault.slot, "SIGSTOP")
                self._stop.wait(fault.seconds)
                self._crew.tell(fault.slot, "SIGCONT")
            case "connections ended":
                self._end_connections(random.Random(fault.seed))
            case "tables locked":
                self._lock_tables(fault.seconds)
            case "locks a job's row":
                self._lock_a_job(fault.seconds)
            case "emptied":
                with self._around.cache() as cache, contextlib.suppress(redis.RedisError):
                    cache.flushall()
            case "filled with rubbish":
                with self._around.cache() as cache, contextlib.suppress(redis.RedisError):
                    _fill_with_rubbish(cache, random.Random(fault.seed))
            case _:
                raise AssertionError(what)

    def _kill_all_again_and_again(self, seconds: float, rng: random.Random) -> None:
        """As a platform does that restarts everything several times in a row, without asking."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._stop.is_set():
            self._crew.tell_all("SIGKILL")
            self._stop.wait(rng.uniform(*BETWEEN_KILLS_SECONDS))

    def _slow(self, service: str, fault: Fault) -> None:
        proxy = self._around.proxies[service]
        proxy.latency_seconds = random.Random(fault.seed).uniform(*SLOW_SECONDS[service])
        self._stop.wait(fault.seconds)
        proxy.latency_seconds = BASE_LATENCY_SECONDS

    def _network(self, service: str, hurt: Callable[[], None], seconds: float) -> None:
        hurt()
        self._stop.wait(seconds)
        self._around.proxies[service].heal()

    def _restart(self, service: str, end: Callable[[str], None], seconds: float) -> None:
        """SQS is cut off until it has restored its queues: before that it denies that they exist."""
        hidden = service == "sqs"
        with self._servers:
            if hidden:
                self._around.proxies[service].cut()
            end(service)
            self._stop.wait(seconds)
            for _ in range(3):
                try:
                    self._around.stack.start(service)
                    break
                except DevstackError as error:
                    self.errors.append(f"{service} did not start: {str(error)[:200]}")
            if hidden:
                self._around.proxies[service].heal()

    def _end_connections(self, rng: random.Random) -> None:
        with contextlib.suppress(SQLAlchemyError), self._around.admin.connect() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND random() < %(share)s",
                {"share": rng.choice((0.3, 1.0))},
            )

    def _lock_tables(self, seconds: float) -> None:
        """Reading goes on; claims, renewals and results wait."""
        with contextlib.suppress(SQLAlchemyError), self._around.admin.connect() as connection:
            connection.exec_driver_sql("BEGIN; LOCK TABLE segment_task IN EXCLUSIVE MODE")
            self._stop.wait(seconds)
            connection.exec_driver_sql("COMMIT")

    def _lock_a_job(self, seconds: float) -> None:
        """An operator who has opened a transaction on one job, and left for a while."""
        with contextlib.suppress(SQLAlchemyError), self._around.admin.connect() as connection:
            connection.exec_driver_sql(LOCK_A_JOB)
            self._stop.wait(seconds)
            connection.exec_driver_sql("COMMIT")


class _Bomb:
    """Unpickled, it would end the process of whoever did so, and that is noticed."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.abort, ()


def _fill_with_rubbish(cache: "redis.Redis", rng: random.Random) -> None:
    """Every key there is gets a value of another kind."""
    keys: list[Any] = list(cache.scan_iter(count=1000))
    for key in keys:
        old: Any = cache.get(key) or b""
        kind = rng.randrange(8)
        if kind == 0:
            cache.delete(key)
            cache.rpush(key, "a list")
        elif kind == 1:
            cache.set(key, cache.get(rng.choice(keys)) or b"")  # another text's page
        else:
            cache.set(key, _rubbish(kind, old, rng))


def _rubbish(kind: int, old: bytes, rng: random.Random) -> bytes:
    match kind:
        case 2:
            return b""
        case 3:
            return rng.randbytes(rng.randrange(1, 2_000))
        case 4:
            return pickle.dumps(_Bomb())
        case 5:
            return old[: rng.randrange(len(old) + 1)]
        case 6:
            at = rng.randrange(len(old)) if old else 0
            return old[:at] + bytes([(old[at] if old else 0) ^ (1 << rng.randrange(8))]) + old[at + 1 :]
        case _:
            return b"[" * 500_000

"""Workers as a model: batches that wait for services, take turns on processors, and lock their jobs' rows. Pure.

Invariant: a batch costs what was measured (`Costs`), whoever else is there; all that the model adds is waiting. Times
are in milliseconds, rates in segments a second, and the same arguments give the same answer.

A lane takes one batch after the other down the road of docs/architecture.md. Each call takes an equal part of the
batch's time on its worker's processor, of which a Python process has one. A job's row is locked from its update until
the commit is on disk; a claim is not waited for. A flush takes all commits that came before it began.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from bench.events import Clock, Process, Resource

CALLS_TO_POSTGRES = 2
"""A batch: claim, settle."""
LEAST_BATCHES = 600
"""Worked off before a rate is taken, but one a lane at least; and four times as many while it is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Of a segment, warm."""

    worker_ms: float
    postgres_ms: float
    elsewhere_ms: float
    """Of what else runs on the machine of the benchmark: a local SQS, proxies."""
    log_bytes: float
    """Of PostgreSQL's write-ahead log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the workers run, and what is assumed of it. The latencies are round trips."""

    sqs_ms: float = 8.0
    postgres_ms: float = 1.0
    cache_ms: float = 1.0
    postgres_processors: int = 8
    shared_processors: int | None = None
    """All that workers and services have, together; None: each worker has its own, and so have the services."""
    flush_ms: float = 1.0
    """Until what was written is on disk."""
    log_mb_a_second: float = 200.0
    locked_share: float = 0.25
    """Of PostgreSQL's time for a settling: what comes after the job's row was locked."""
    in_flight_messages: int = 120_000
    """https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html"""
    graph_ms: float = 70.0
    """Until Neo4j has given the pages of a job's family, once a job."""
    pages_ms: float = 8.0
    """The worker's processor time to take them from the shared cache."""
    pages_trips: int = 3
    family_mb: float = 1.6
    """What they take in memory."""
    memory_mb: float = 96.0
    """For pages in each worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How many of what. `jobs`: at a time."""

    workers: int
    jobs: int
    mixed: bool = False
    """Whether each message of a batch is of any job, or all of them of one."""
    lanes: int = 16
    """Batches in hand, in each worker."""
    batch: int = 10
    """Messages a receive and a delete."""
    receives: int = 1
    """A batch."""
    segments: int = 2_000
    """A job."""

    @property
    def messages(self) -> int:
        """In a batch."""
        return self.batch * self.receives


@dataclass(frozen=True, slots=True)
class Forecast:
    """What comes of it."""

    rate: float
    """Segments a second."""
    busy: Mapping[str, float]
    """By resource, 0 to 1; the row is the busiest job's, "pages" the part of the workers' time that goes to them."""


def forecast(costs: Costs, place: Place, load: Load) -> Forecast:
    """Let it run until every lane has come round, and see what is done from then on."""
    return _Model(costs, place, load).run()


def page_reads(place: Place, load: Load) -> tuple[float, float]:
    """How likely a batch that meets a job has to read its pages: from Neo4j; from there or from the shared cache.

    Neo4j is asked once a job, and each worker reads when it first meets the job, or meets it again after its memory
    had no room for the families of all jobs.
    """
    jobs_a_batch = load.jobs * (1 - (1 - 1 / load.jobs) ** load.messages) if load.mixed else 1.0
    meetings = load.segments * jobs_a_batch / load.messages
    first_meetings = load.workers * (1 - (1 - 1 / load.workers) ** meetings)
    kept = min(1.0, place.memory_mb / place.family_mb / load.jobs)
    return 1 / meetings, 1 - (1 - first_meetings / meetings) * kept


class _Model:
    def __init__(self, costs: Costs, place: Place, load: Load) -> None:
        self._place = place
        self._load = load
        steps = CALLS_TO_POSTGRES + 2 * load.receives
        self._worker_ms = costs.worker_ms * load.messages / steps
        self._elsewhere_ms = costs.elsewhere_ms * load.messages / steps
        self._postgres_ms = costs.postgres_ms * load.messages / CALLS_TO_POSTGRES
        self._write_ms = costs.log_bytes * load.messages / (place.log_mb_a_second * 1_000)
        self._from_graph, self._from_afar = page_reads(place, load)
        self._random = Random(0)
        self._clock = Clock()
        self._done = 0
        self._pages_ms = self._log_ms = 0.0  # spent so far
        self._written_at = self._flushed_at = 0.0  # when the log is idle again, when its last flush ends
        self._workers = self._resources(load.workers)
        self._rows = self._resources(load.jobs)
        self._in_flight = Resource(self._clock, place.in_flight_messages // load.messages)
        self._processors = Resource(self._clock, place.shared_processors or place.postgres_processors)

    def run(self) -> Forecast:
        for worker in self._workers:
            for _ in range(self._load.lanes):
                self._clock.after(0.0, self._lane(worker))
        first = max(LEAST_BATCHES, self._load.workers * self._load.lanes)
        last = first + 4 * LEAST_BATCHES
        self._clock.run(lambda: self._done >= first)
        began, before = self._clock.now, self._used()
        self._clock.run(lambda: self._done >= last)
        passed = self._clock.now - began
        busy = {name: (used - before[name]) / passed for name, used in self._used().items()}
        return Forecast((last - first) * self._load.messages / passed * 1_000, busy)

    def _resources(self, number: int) -> list[Resource]:
        return [Resource(self._clock) for _ in range(number)]

    def _used(self) -> dict[str, float]:
        """The time for which each was used since the start, as a share of what there is of it."""
        return {
            "worker": sum(each.used for each in self._workers) / len(self._workers),
            "pages": self._pages_ms / len(self._workers),
            "machine" if self._place.shared_processors else "PostgreSQL": self._processors.used,
            "row": max(each.used for each in self._rows),
            "log": self._log_ms,
            "in flight": self._in_flight.used,
        }

    def _lane(self, worker: Resource) -> Process:
        place = self._place
        processor = [worker, self._processors] if place.shared_processors else [worker]
        while True:
            yield self._in_flight
            for _ in range(self._load.receives):
                yield from self._call(place.sqs_ms)
                yield from self._work(self._worker_ms, processor)
            yield from self._call(place.postgres_ms)
            yield from self._work(self._postgres_ms, [self._processors])
            jobs = self._jobs()
            for _ in jobs:
                yield from self._read_pages(processor)
            yield from self._work(self._worker_ms, processor)
            yield from self._call(place.postgres_ms)
            yield from self._settle(jobs)
            yield from self._work(self._worker_ms, processor)
            for _ in range(self._load.receives):
                yield from self._call(place.sqs_ms)
                yield from self._work(self._worker_ms, processor)
            self._in_flight.release()
            self._done += 1

    def _jobs(self) -> list[int]:
        """Those of a batch, in the order in which their rows are locked."""
        draws = self._load.messages if self._load.mixed else 1
        return sorted({self._random.randrange(self._load.jobs) for _ in range(draws)})

    def _read_pages(self, processor: Sequence[Resource]) -> Process:
        chance = self._random.random()
        if chance < self._from_graph:
            yield self._place.graph_ms
        elif chance < self._from_afar:
            yield self._place.cache_ms * self._place.pages_trips
            self._pages_ms += self._place.pages_ms
            yield from self._work(self._place.pages_ms, processor)

    def _settle(self, jobs: Sequence[int]) -> Process:
        locked_ms = self._postgres_ms * self._place.locked_share
        yield from self._work(self._postgres_ms - locked_ms, [self._processors])
        for job in jobs:
            yield self._rows[job]
        yield from self._work(locked_ms, [self._processors])
        yield from self._commit()
        for job in jobs:
            self._rows[job].release()

    def _commit(self) -> Process:
        """Written one after another, on disk with the next flush."""
        flush_ms = self._place.flush_ms
        self._log_ms += self._write_ms
        self._written_at = written_at = max(self._written_at, self._clock.now) + self._write_ms
        if self._flushed_at <= written_at:
            self._flushed_at = written_at + flush_ms
        elif self._flushed_at <= written_at + flush_ms:  # it has begun before, and the one after it is for us
            self._flushed_at += flush_ms
        yield self._flushed_at - self._clock.now

    def _call(self, latency_ms: float) -> Process:
        """A round trip, and what the service and a proxy do for it on a machine that is everybody's."""
        yield latency_ms
        if self._place.shared_processors:
            yield from self._work(self._elsewhere_ms, [self._processors])

    def _work(self, mean_ms: float, resources: Sequence[Resource]) -> Process:
        """Exponential times, first come first served, wait as long on average as any times on processors by turns."""
        for resource in resources:
            yield resource
        yield self._random.expovariate(1) * mean_ms
        for resource in resources:
            resource.release()

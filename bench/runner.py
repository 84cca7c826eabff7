"""One run: make jobs, let one contestant do them, read what that took.

Invariant: a run starts with an empty cache, an empty database and processes of its own, and what it reports was
checked: every row COMPLETED and counted, and a sample of the results equal to the walk's definition.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import jobs
from bench.ground import SERVICES, Arena, BenchError, Ground
from bench.naive import NaiveGraph
from bench.process import ContestantProcess, Usage, wait_for
from bench.processors import Meter, Reading
from bench.reference import walk
from bench.runs import Plan, Run
from bench.statistics import quantile, skipped_at_start, steady_rate, without_start
from bench.timed import read_record
from devstack.proxy import Counters

WAIT_SECONDS = 1_200.0
SETTLE_SECONDS = 0.5
CHECKED_RESULTS = 3
WARM_UP_PER_WORKER = 60
NO_LATENCY: Mapping[str, float] = dict.fromkeys(SERVICES, 0.0)


def run(ground: Ground, plan: Plan) -> Run:
    """Carry it out. Raises `BenchError` when the contestant fails at its work."""
    return run_with_results(ground, plan)[0]


def run_with_results(ground: Ground, plan: Plan) -> tuple[Run, dict[str, Any]]:
    """Carry it out, and what the last of its jobs has for results: segment id to result."""
    latencies = NO_LATENCY if plan.way == "counted" else plan.latencies_ms
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        arena = stack.enter_context(ground.arena(latencies))
        runner = _Runner(ground, arena, plan, folder, stack)
        return runner.run(), runner.results


class _Runner:
    def __init__(self, ground: Ground, arena: Arena, plan: Plan, folder: Path, stack: ExitStack) -> None:
        self._ground = ground
        self._arena = arena
        self._plan = plan
        self._folder = folder
        self._stack = stack
        self._processes: list[ContestantProcess] = []
        self._segments = plan.text.pick(plan.segments)
        self._total = plan.segments * plan.jobs
        self._idle_start = plan.idle_start or plan.way == "counted"
        self._at_ready: dict[str, Counters] = {}
        self.results: dict[str, Any] = {}

    def run(self) -> Run:
        made = jobs.make_jobs(self._arena, self._plan.text, self._segments, self._plan.jobs, mixed=self._plan.mixed)
        warmed_up = self._begin(made.bodies)
        skipped = skipped_at_start(self._total, warmed_up)
        meter = Meter(self._groups())
        self._wait_for_count(skipped)
        first = self._look(meter)
        self._wait_for_count(self._total)
        last = self._look(meter)
        usages = [process.usage() for process in self._processes]
        for process in self._processes:
            process.stop()
        self.results = jobs.results(self._arena, made.ids[-1])
        self._check()
        return self._add_views(self._report(skipped, usages, last.since(first)), last)

    def _report(self, skipped: int, usages: Sequence[Usage], passed: "_Look") -> Run:
        times = jobs.completion_times(self._arena)
        started_at = self._processes[0].started_at
        return Run(
            kind=self._plan.kind,
            workers=self._plan.workers,
            jobs=self._plan.jobs,
            segments=self._total,
            steady=steady_rate(times, skipped),
            from_start=None if self._idle_start else len(times) / (times[-1] - started_at),
            load=passed.reading.load,
            others=passed.reading.others,
            cpu_ms={name: seconds * 1000 / passed.segments for name, seconds in passed.reading.cpu.items()},
            cpu_seconds=sum(usage.cpu_seconds for usage in usages),
            peak_mb=max(usage.peak_mb for usage in usages),
            wal_bytes=passed.wal_bytes / passed.segments,
            round_trips={n: c.round_trips / passed.segments for n, c in passed.counters.items()},
        )

    def _add_views(self, run: Run, last: "_Look") -> Run:
        """What only an observed or a counted run can tell."""
        if self._plan.way == "counted":
            in_all = {n: c.since(self._at_ready[n]).round_trips for n, c in last.counters.items()}
            return replace(run, round_trips_in_all=in_all)
        if self._plan.way == "timed":
            return run
        records = [read_record(self._folder / f"observed-{number}") for number in range(self._plan.workers)]
        batches = [seconds for record in records for seconds in without_start(record.batches)]
        return replace(
            run,
            batch_ms={f"p{percent}": quantile(batches, percent / 100) * 1000 for percent in (50, 95, 99)},
            neo4j_seconds=sum(sum(record.neo4j) for record in records),
        )

    def _begin(self, bodies: Sequence[str]) -> int:
        """Let the contestants loose on the messages; how many of them were a warm-up."""
        if not self._idle_start:
            jobs.send(self._arena, bodies)
            self._level_the_ground()
            self._start()
            return 0
        self._level_the_ground()
        self._start()
        for process in self._processes:
            process.wait_until_ready()
        self._at_ready = self._count()
        warm_up = min(WARM_UP_PER_WORKER * self._plan.workers, self._total // 10)
        jobs.send(self._arena, bodies[:warm_up])
        self._wait_for_count(warm_up)
        for process in self._processes:
            process.pause()
        jobs.send(self._arena, bodies[warm_up:])
        for process in self._processes:
            process.resume()
        return warm_up

    def _level_the_ground(self) -> None:
        """The same start for everybody: statistics as autovacuum would leave them, and a checkpoint just made."""
        with self._arena.postgres.cursor() as cursor:
            cursor.execute("ANALYZE")
            cursor.execute("CHECKPOINT")
        time.sleep(SETTLE_SECONDS)

    def _start(self) -> None:
        results = self._folder / "results"
        results.write_text("\n".join(self._plan.results), encoding="utf-8")
        for number in range(self._plan.workers):
            process = ContestantProcess(
                self._plan.kind,
                {**self._arena.environment, **self._plan.settings},
                self._folder,
                number,
                results=results,
                observed=self._folder / f"observed-{number}" if self._plan.way == "observed" else None,
            )
            self._processes.append(self._stack.enter_context(process))

    def _groups(self) -> dict[str, list[int]]:
        groups = {name: [pid] for name, pid in self._ground.server_pids().items()}
        groups["contestants"] = [process.pid for process in self._processes]
        groups["proxies"] = [proxy.pid for proxy in self._arena.proxies.values()]
        return groups

    def _wait_for_count(self, segments: int) -> None:
        what = f"{segments} segments of a {self._plan.kind}"
        wait_for(lambda: jobs.counted(self._arena) >= segments, self._processes, WAIT_SECONDS, what)

    def _look(self, meter: Meter) -> "_Look":
        return _Look(jobs.counted(self._arena), meter.read(), self._count(), jobs.wal_position(self._arena))

    def _count(self) -> dict[str, Counters]:
        return {name: proxy.counters() for name, proxy in self._arena.proxies.items()}

    def _check(self) -> None:
        wrong = jobs.wrong_rows(self._arena)
        if wrong:
            raise BenchError(f"{wrong} rows of a {self._plan.kind} are not as they must be")
        if self._plan.kind == "floor":
            return
        with self._ground.driver.session() as session:
            graph = NaiveGraph(session, None)
            for at in range(CHECKED_RESULTS):
                segment = self._segments[(2 * at + 1) * len(self._segments) // (2 * CHECKED_RESULTS)]
                if self.results[segment.id] != walk(graph, self._plan.text.manifestation, segment.start, segment.end):
                    raise BenchError(f"a {self._plan.kind} has another result than the reference for {segment.id}")


@dataclass(frozen=True, slots=True)
class _Look:
    segments: int
    reading: Reading
    counters: Mapping[str, Counters]
    wal_bytes: int

    def since(self, earlier: "_Look") -> "_Look":
        """What has passed between an earlier look and this one."""
        return _Look(
            max(1, self.segments - earlier.segments),  # none when all was done before the first look
            self.reading.since(earlier.reading),
            {name: counters.since(earlier.counters[name]) for name, counters in self.counters.items()},
            self.wal_bytes - earlier.wal_bytes,
        )

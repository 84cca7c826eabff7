"""From a worker's start to its first committed segment, beside the worker of an earlier commit.

`python -m bench.start --before COMMIT` measures that alone.

Invariant: both are started the same way by the same interpreter with the same packages, those that the image has, in
turn, on services that are up and a graph that is loaded; one message waits. The time is from just before the process is
made until PostgreSQL stores the result, both by the machine's clock; processor time is the process's own until that is
seen.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import graphs, jobs
from bench.earlier import EARLIER, worker_of
from bench.graphs import Text
from bench.ground import ROOT, BenchError, Ground
from bench.limits import show
from bench.process import ContestantProcess
from bench.sizes import QUICK
from bench.statistics import Spread, ratios
from devstack.stack import Stack

REPEATS = 7
WARMING_ROUNDS = 2
"""Starts of each that don't count: they write the byte code, and warm PostgreSQL's and Neo4j's plans."""
ABSENT = ("numpy", "opentelemetry")
"""What drivers load when they find it: the tools here need it, the image has none of it."""
LOOK_SECONDS = 0.002
LIMIT_SECONDS = 60.0


class Began(NamedTuple):
    """One start, until the first segment was committed."""

    milliseconds: float
    cpu_milliseconds: float


def measure(ground: Ground, text: Text, before: Path, repeats: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Milliseconds of each repeat, by the clock and of the processor: of the worker in the tree `before`, and ours."""
    trees = {"before": before, "now": ROOT}
    began: dict[str, list[Began]] = {label: [] for label in trees}
    for repeat in range(-WARMING_ROUNDS, repeats):
        for label in trees if repeat % 2 else [*trees][::-1]:
            one = first_segment(ground, text, trees[label])
            if repeat >= 0:
                began[label].append(one)
                say(f"  {label:<28} {one.milliseconds:>8,.0f} ms, {one.cpu_milliseconds:,.0f} ms of processor")
    return {
        "milliseconds": {label: [one.milliseconds for one in began[label]] for label in trees},
        "cpu_milliseconds": {label: [one.cpu_milliseconds for one in began[label]] for label in trees},
    }


def first_segment(ground: Ground, text: Text, tree: Path) -> Began:
    """Start a worker with one message waiting."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ground.arena() as arena:
        for package in ABSENT:  # a module that is run is looked for in its folder first
            (Path(name) / f"{package}.py").write_text("raise ImportError\n", encoding="utf-8")
        jobs.send(arena, jobs.make_jobs(arena, text, text.pick(1)).bodies)
        with ContestantProcess("worker", {**arena.environment, "PYTHONPATH": str(tree)}, Path(name)) as process:
            deadline = time.monotonic() + LIMIT_SECONDS
            while not jobs.counted(arena):
                process.check()
                if time.monotonic() > deadline:
                    raise BenchError(f"no first segment within {LIMIT_SECONDS:.0f} s.{process.log_tail()}")
                time.sleep(LOOK_SECONDS)
            used = process.usage()
            process.stop()
        return Began((jobs.completion_times(arena)[0] - process.started_at) * 1000, used.cpu_seconds * 1000)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.start", description="Measure the worker's start.")
    parser.add_argument(
        "--before", metavar="COMMIT", default=EARLIER, help=f"the worker to compare with (default: {EARLIER})"
    )
    parser.add_argument("--repeats", type=int, default=REPEATS, metavar="N", help=f"of each (default: {REPEATS})")
    parser.add_argument("--stack", default="bench", metavar="NAME", help="the local stack (default: bench)")
    parser.add_argument("--keep", action="store_true", help="leave the services running at the end")
    options = parser.parse_args(arguments)
    stack = Stack(options.stack)
    try:
        with Ground.open(stack) as ground, worker_of(options.before) as before:
            text = graphs.provide(ground.driver, QUICK.family, 0, print)
            measured = measure(ground, text, before, options.repeats, print)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        if not options.keep:
            stack.down()
    for what, times in measured.items():
        print(f"{what}: {show(Spread.of(times['now']), 0)}, before {show(Spread.of(times['before']), 0)};", end=" ")
        print(f"{show(Spread.of(ratios(times['now'], times['before'])))} times")
    return 0


if __name__ == "__main__":
    sys.exit(main())

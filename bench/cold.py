"""The first segment of a cold job: from the sending of its message until its result is stored.

Invariant: the worker and the naive contestant are treated alike: a fresh process that is up and idle, an empty cache,
a job of one segment. Both times are of one clock, the machine's: taken just before the message is sent, and by
PostgreSQL when it stores the result.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import jobs
from bench.graphs import Text
from bench.ground import Ground
from bench.process import ContestantProcess, Kind, wait_for
from bench.runner import NO_LATENCY

KINDS: tuple[Kind, ...] = ("worker", "naive")
WARMING_ROUNDS = 3
"""Cold segments of each contestant before the first that counts: one alone may have run thousands of times by then."""
IDLE_SECONDS = 1.5
LIMIT_SECONDS = 60.0


def measure(ground: Ground, text: Text, earlier_text: Text, repeats: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Milliseconds of each repeat by contestant, and the round trips of one more, which is counted."""
    for each in (earlier_text, *[text] * WARMING_ROUNDS):  # plans, the store's own page cache, the JVM's compiler
        for kind in KINDS:
            first_segment(ground, each, kind)
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for repeat in range(repeats):
        for kind in KINDS if repeat % 2 else KINDS[::-1]:
            milliseconds, _ = first_segment(ground, text, kind)
            times[kind].append(milliseconds)
            say(f"  {kind:<28} timed     {milliseconds:>8,.1f} ms")
    counted = {kind: first_segment(ground, text, kind, NO_LATENCY)[1] for kind in KINDS}
    return {"milliseconds": times, "round_trips": counted}


def first_segment(
    ground: Ground, text: Text, kind: Kind, latencies_ms: Mapping[str, float] | None = None
) -> tuple[float, dict[str, int]]:
    """Milliseconds, and with proxies the round trips by service."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ground.arena(latencies_ms) as arena:
        with ContestantProcess(kind, arena.environment, Path(name)) as process:
            process.wait_until_ready()
            time.sleep(IDLE_SECONDS)
            segment = text.segments[len(text.segments) // 2]
            made = jobs.make_jobs(arena, text, [segment])
            before = {service: proxy.counters() for service, proxy in arena.proxies.items()}
            sent_at = time.time()
            jobs.send(arena, made.bodies)
            wait_for(lambda: jobs.counted(arena) == 1, [process], LIMIT_SECONDS, f"the first segment of a {kind}")
            passed = {service: proxy.counters().since(before[service]) for service, proxy in arena.proxies.items()}
            process.stop()
        milliseconds = (jobs.completion_times(arena)[0] - sent_at) * 1000
        return milliseconds, {service: counters.round_trips for service, counters in passed.items()}

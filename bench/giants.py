"""`python -m bench.giants`: the largest things that a graph may hold, each walked once, cold, by a process of its own.

Invariant: a giant is walked by the worker's own road (page cache, shared cache, graph), with nothing cached before;
what a process is said to have needed is its own peak.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

import neo4j
import redis

from app.caching.tiers import PageCache
from app.config import load_settings
from app.core.segments import Start
from app.errors import PermanentError
from app.logs import setup_logging
from app.neo4j_database import Neo4JDatabase
from app.pages.walk import walk_together
from bench.ground import KEPT, ROOT
from bench.report import table
from devstack.families import Annotation, Family, Segment, load_family, make_constraints
from devstack.stack import Stack

STACK: Final = "giants"
CHARACTERS: Final = 10
"""Of a segment."""
LIMIT_SECONDS: Final = 1_800.0
MARKER: Final = "MERGE (g:BenchGiant {name: $name})"
FIND_MARKER: Final = "MATCH (g:BenchGiant {name: $name}) RETURN g.name"


class Giant(NamedTuple):
    """`make`: the graph; its walk starts at the whole of [start, end) of the first text."""

    what: str
    make: Callable[[], Family]
    start: int
    end: int


def main() -> int:
    """Load what is missing, walk each giant, print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.giants", description="Walk the largest things, cold.")
    parser.add_argument("--only", metavar="NAME", choices=GIANTS, action="append", help=f"of {', '.join(GIANTS)}")
    parser.add_argument("--keep", action="store_true", help="leave the services running at the end")
    parser.add_argument("--walk", choices=GIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.walk:
        print(json.dumps(walk(options.walk)))
        return 0
    stack = Stack(STACK)
    stack.up()
    try:
        rows = [run(stack, name) for name in options.only or GIANTS]
    finally:
        if not options.keep:
            stack.down()
    print(
        table(
            ("", "seconds", "of them our CPU", "peak MB", "texts related", "segments related", "result MB", "again, s"),
            rows,
        )
    )
    return 0


def run(stack: Stack, name: str) -> list[str]:
    """A row of the table."""
    environment = stack.env()
    provide(environment, name)
    with closing(redis.Redis.from_url(environment["DRAGONFLY_URL"])) as cache:
        cache.flushall()
    kept = {key: value for key, value in os.environ.items() if key in KEPT}
    done = subprocess.run(
        [sys.executable, "-m", "bench.giants", "--walk", name],
        cwd=ROOT,
        env=kept | environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=LIMIT_SECONDS,
        check=True,
    )
    measured = json.loads(done.stdout)
    print(f"{name}: {measured}", file=sys.stderr, flush=True)
    return [
        GIANTS[name].what,
        f"{measured['seconds']:,.1f}",
        f"{measured['cpu_seconds']:,.1f}",
        f"{measured['peak_mb']:,.0f}",
        f"{measured['texts']:,}",
        f"{measured['segments']:,}",
        f"{measured['result_bytes'] / 1e6:,.1f}",
        f"{measured['again_seconds']:,.2f}",
    ]


def provide(environment: dict[str, str], name: str) -> None:
    """The giant in the graph, loaded now if it is not there whole."""
    auth = (environment["NEO4J_USER"], environment["NEO4J_PASSWORD"])
    with neo4j.GraphDatabase.driver(environment["NEO4J_URI"], auth=auth, notifications_min_severity="OFF") as driver:
        make_constraints(driver)
        if driver.execute_query(FIND_MARKER, name=name).records:
            return
        began = time.monotonic()
        load_family(driver, GIANTS[name].make())
        driver.execute_query(MARKER, name=name)
        print(f"{name}: loaded in {time.monotonic() - began:,.0f} s", file=sys.stderr, flush=True)


def walk(name: str) -> dict[str, Any]:
    """Walk it, cold and then again, in this process."""
    settings = load_settings(*SETTINGS)
    setup_logging("WARNING", "text")
    graph = Neo4JDatabase(settings.neo4j_uri, settings.neo4j_user, settings.neo4j_password, settings.neo4j_database)
    pages = PageCache.connect(
        graph,
        memory_bytes=settings.page_cache_megabytes * 1_000_000,
        url=settings.dragonfly_url,
        ttl_seconds=settings.cache_ttl_seconds,
        secret=settings.neo4j_password,
        clock_id="",
    )
    giant = GIANTS[name]
    now_us = time.time_ns() // 1_000
    start = Start(_text(name, 0), giant.start, giant.end, fresh_since_us=now_us, read_at_us=now_us)
    began, began_cpu = time.monotonic(), time.process_time()
    (answer,) = walk_together([start], pages)
    seconds, cpu_seconds = time.monotonic() - began, time.process_time() - began_cpu
    if isinstance(answer, PermanentError):
        raise answer
    for thread in threading.enumerate():
        if thread.name == "sharing pages":
            thread.join()
    began = time.monotonic()
    walk_together([start], pages)
    again = time.monotonic() - began
    peak_mb = _peak_mb()  # before the answer is looked at
    graph.close()
    text = answer.encode()
    related = json.loads(text)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mb": peak_mb,
        "texts": len(related),
        "segments": sum(len(entry["segments"]) for entry in related),
        "result_bytes": len(text),
        "again_seconds": again,
    }


def _peak_mb() -> float:
    """Of this program alone: `getrusage` also counts what its parent was when it was forked."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    assert found is not None, "no Linux"
    return int(found[1]) * 1_024 / 1e6


def texts_in_a_tree(name: str, parents: Sequence[int], segments: int) -> Family:
    """Texts of so many segments each; all but the first are aligned with their parent, segment by segment."""
    root = _text(name, 0)
    annotations = [Annotation(f"{root}.s", root, "segmentation")]
    rows = [*_layer(f"{root}.s", segments)]
    aligned: list[tuple[str, str]] = []
    links: list[tuple[str, str]] = []
    for number, parent in enumerate(parents, start=1):
        text = _text(name, number)
        sides = (f"{text}.up", f"{text}.down")
        annotations += [
            Annotation(f"{text}.s", text, "segmentation"),
            Annotation(sides[0], text, "alignment"),
            Annotation(sides[1], _text(name, parent), "alignment"),
        ]
        aligned.append(sides)
        for layer in (f"{text}.s", *sides):
            rows += _layer(layer, segments)
        links += [(f"{sides[0]}.{at}", f"{sides[1]}.{at}") for at in range(segments)]
    texts = tuple(_text(name, number) for number in range(len(parents) + 1))
    return Family(texts, tuple(annotations), tuple(rows), tuple(aligned), tuple(links))


def one_to_many(name: str, segments: int) -> Family:
    """A text of one segment, which is aligned with every one of another text's."""
    one, many = _text(name, 0), _text(name, 1)
    return Family(
        (one, many),
        (
            Annotation(f"{one}.s", one, "segmentation"),
            Annotation(f"{one}.a", one, "alignment"),
            Annotation(f"{many}.s", many, "segmentation"),
            Annotation(f"{many}.a", many, "alignment"),
        ),
        (
            Segment(f"{one}.s.0", f"{one}.s", 0, CHARACTERS),
            Segment(f"{one}.a.0", f"{one}.a", 0, CHARACTERS),
            *_layer(f"{many}.s", segments),
            *_layer(f"{many}.a", segments),
        ),
        ((f"{one}.a", f"{many}.a"),),
        tuple((f"{one}.a.0", f"{many}.a.{at}") for at in range(segments)),
    )


def _layer(annotation: str, segments: int) -> Iterable[Segment]:
    return (Segment(f"{annotation}.{at}", annotation, at * CHARACTERS, (at + 1) * CHARACTERS) for at in range(segments))


def _text(name: str, number: int) -> str:
    return f"giant-{name}-{number:04}"


SETTINGS: Final = (
    "NEO4J_URI",
    "NEO4J_USER",
    "NEO4J_PASSWORD",
    "NEO4J_DATABASE",
    "DRAGONFLY_URL",
    "CACHE_TTL_SECONDS",
    "PAGE_CACHE_MEGABYTES",
)
GIANTS: Final = {
    "text": Giant(
        "one segment of a text of 500,000, aligned with a second one",
        lambda: texts_in_a_tree("text", [0], 500_000),
        2_500_000,
        2_500_000 + CHARACTERS,
    ),
    "family": Giant(
        "one segment of a family of 1,000 texts, of 300 segments each",
        lambda: texts_in_a_tree("family", [0] * 999, 300),
        1_500,
        1_500 + CHARACTERS,
    ),
    "chain": Giant(
        "one segment of a chain of 500 texts, of 300 segments each",
        lambda: texts_in_a_tree("chain", range(499), 300),
        1_500,
        1_500 + CHARACTERS,
    ),
    "fan": Giant("one segment related to 100,000", lambda: one_to_many("fan", 100_000), 0, CHARACTERS),
}

if __name__ == "__main__":
    sys.exit(main())

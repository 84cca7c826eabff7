"""What can be run, and what is read from a run. Pure.

Three ways to look, never two at once: "timed" runs the contestant as shipped, "observed" watches it from inside
(bench/timed.py), "counted" puts proxies without latency before the services and counts what passes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bench.graphs import Text
from bench.process import Kind

type Way = Literal["timed", "observed", "counted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run. `segments`: a job. `results`: what a floor stores."""

    text: Text
    segments: int
    kind: Kind = "worker"
    jobs: int = 1
    mixed: bool = False
    workers: int = 1
    idle_start: bool = False
    """Start the processes first and warm them up, so that all of them begin together; else messages wait first."""
    latencies_ms: Mapping[str, float] | None = None
    results: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    """Of the contestants, beside where the services are."""
    way: Way = "timed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What was read. "A segment" is over the steady part: after the first tenth."""

    kind: Kind
    workers: int
    jobs: int
    segments: int
    steady: float
    """Segments a second."""
    from_start: float | None
    """Segments a second since the start of the process."""
    load: float
    """The share of all processors that was busy in the steady part."""
    others: float
    """The share of all processors that went to what has nothing to do with the benchmark."""
    cpu_ms: Mapping[str, float]
    """A segment, by group of processes; "contestants" are the workers."""
    cpu_seconds: float
    """Of the contestants, in their whole life."""
    peak_mb: float
    """Of the largest contestant."""
    wal_bytes: float
    """A segment."""
    round_trips: Mapping[str, float] = field(default_factory=dict)
    """A segment, where there were proxies."""
    round_trips_in_all: Mapping[str, int] = field(default_factory=dict)
    """Since the process was ready, so that Neo4j's are what it took to warm the family; counted runs only."""
    batch_ms: Mapping[str, float] = field(default_factory=dict)
    """p50, p95, p99; observed runs only."""
    neo4j_seconds: float | None = None
    """Waited for Neo4j in all; observed runs only."""

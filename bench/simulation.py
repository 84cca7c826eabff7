"""Many workers on paper: `python -m bench.simulation FILE` prints the section "Capacity" of docs/performance.md.

Invariant: what a segment costs is read from the run; all that is not measured is said in the section; and the model is
held against the run's own points, on the machine that they were measured on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import median
from typing import NamedTuple

from bench.limits import Document, steady, variant
from bench.model import CALLS_TO_POSTGRES, Costs, Forecast, Load, Place, forecast
from bench.report import print_a_file, table

WORKERS = (1, 3, 10, 30, 100, 1_000)
JOBS = (1, 10, 100, 1_000)
FULL_SHARE = 0.85
"""A resource that is so busy is called full: most who need it have to queue."""
LOCAL = Place(sqs_ms=0.0, postgres_ms=0.0, cache_ms=0.0, flush_ms=0.2)
"""The benchmark's machine, but for its processors."""
NOT_ELSEWHERE = ("contestants", "postgres")

WHAT_IS_FULL: Mapping[str, str] = {
    "PostgreSQL": "its processors",
    "log": "the disk of its write-ahead log",
    "row": "a job's row: batches that have segments of one job commit one after another",
    "pages": "the workers' processors, mostly with pages that they have not met before or had no room for",
    "worker": "the one processor that the Python of each worker can use",
    "in flight": "SQS, which gives out no more messages at a time",
}
"""Where several are full the first of them is named."""

FEW, MANY = Load(workers=1, jobs=1), Load(workers=100, jobs=100)
CHANGED_AT: Sequence[Load] = (
    FEW,
    replace(FEW, workers=10),
    replace(FEW, workers=10, jobs=1_000),
    MANY,
    replace(MANY, mixed=True),
)
CHANGES: Mapping[str, tuple[str, float]] = {
    "twice as many workers": ("workers", 2),
    "`SQS_BATCHES_IN_HAND` 8, not 16": ("lanes", 0.5),
    "`SQS_BATCH_SIZE` 5, not 10": ("batch", 0.5),
    "`PAGE_CACHE_MEGABYTES` 960, not 96": ("memory_mb", 10),
    "ten times as many jobs at a time": ("jobs", 10),
    "PostgreSQL on twice as many processors": ("postgres_processors", 2),
    "commits on disk in a fifth of the time": ("flush_ms", 0.2),
    "results, and so the log, half as large": ("log_bytes", 0.5),
    "half the worker's time a segment": ("worker_ms", 0.5),
}
"""The field of `Costs`, `Place` or `Load`, and what it is multiplied with."""


class Point(NamedTuple):
    """Segments a second, and the share of the machine's processors that was busy: measured, and by the model."""

    label: str
    rate: float
    busy: float
    model_rate: float
    model_busy: float


def markdown(
    document: Document,
    workers: Sequence[int] = WORKERS,
    jobs: Sequence[int] = JOBS,
    changed_at: Sequence[Load] = CHANGED_AT,
) -> str:
    """The section; a standard profile must have been run. Ten seconds of computing."""
    costs, place = costs_of(_worker(document)), Place()
    receives = receives_of(document)
    changed_at = [replace(load, receives=receives) for load in changed_at]
    return f"""\
## Capacity

Many workers on paper: what `python -m bench.simulation bench/out/FILE.json` prints of a run. In `bench/model.py`
batches wait for services, take turns on processors and lock their jobs' rows until they are committed. What goes in:

{_what_is_in(costs, place, receives)}

The model beside what was measured, on the same machine, which workers, services and proxies share. The costs are those
of one worker with sixteen batches in hand in the same profile; all else follows:

{_comparison(document)}

### Where it bends

Segments a second, and what is full, {FULL_SHARE:.0%} busy or more. Where nothing is, workers wait for round trips.
A batch is of one job; *mixed*, each of its messages is of any job, as when jobs are sent at the same time.

{_workers_and_jobs(costs, place, workers, jobs, receives)}

{"\n".join(f"- *{name}*: {what}" for name, what in WHAT_IS_FULL.items())}

### What moves the bend

Times as many segments a second, when one thing is changed:

{_changes(costs, place, changed_at)}"""


def costs_of(each: Document) -> Costs:
    """Of a variant: the medians of its runs."""

    def median_of(figure: Callable[[Document], float]) -> float:
        return median(map(figure, each["runs"]))

    return Costs(
        worker_ms=median_of(lambda run: run["cpu_ms"]["contestants"]),
        postgres_ms=median_of(lambda run: run["cpu_ms"]["postgres"]),
        elsewhere_ms=median_of(lambda run: sum(ms for name, ms in run["cpu_ms"].items() if name not in NOT_ELSEWHERE)),
        log_bytes=median_of(lambda run: run["wal_bytes"]),
    )


def receives_of(document: Document) -> int:
    """How many receives a batch is made of under a backlog, as the calls to PostgreSQL tell.

    The median of all that were counted: what is in hand where the counting begins and ends shifts one by a sixth.
    """
    profiles = document["profiles"]
    others = [each for name in ("texts", "memory") if name in profiles for each in profiles[name]["variants"]]
    counted = [each["counted"] for each in (_worker(document), *others) if "counted" in each]
    calls: float = median(each["round_trips"]["postgres"] for each in counted)
    return max(1, round(CALLS_TO_POSTGRES / calls / FEW.batch))


def _worker(document: Document) -> Document:
    return variant(document["profiles"]["standard"], "worker")


def points(document: Document) -> Iterator[Point]:
    """Those of one worker and several; costs are those of the profile's one worker with the usual batches in hand.

    What others took of the machine made its processors so much slower for the benchmark.
    """
    for name in ("lanes", "cloud", "workers"):
        profile = document["profiles"].get(name, {"variants": []})
        far = {f"{service}_ms": ms for service, ms in profile.get("latencies_ms", {}).items() if service != "neo4j"}
        place = replace(LOCAL, **far, shared_processors=document["machine"]["processors"])
        loads = [(each, _load(name, each)) for each in profile["variants"] if each["label"] != "naive"]
        for each, load in loads:
            load = replace(load, receives=receives_of(document))
            costs = costs_of(next(each for each, load in loads if (load.workers, load.lanes) == (1, FEW.lanes)))
            left = 1 - median(run["others"] for run in each["runs"])
            for time in ("worker_ms", "postgres_ms", "elsewhere_ms"):
                costs = _times(costs, time, 1 / left)
            result, busy = forecast(costs, place, load), median(run["load"] for run in each["runs"])
            model_busy = 1 - left + left * result.busy["machine"]
            yield Point(f"{name}: {each['label']}", median(steady(each)), busy, result.rate, model_busy)


def _load(profile: str, each: Document) -> Load:
    """Jobs that follow each other are one at a time."""
    if profile == "lanes":
        return replace(FEW, lanes=each["value"])
    mixed = each["label"].endswith("four jobs")
    return replace(FEW, workers=each["value"], jobs=4 if mixed else 1, mixed=mixed)


def what_is_full(result: Forecast) -> str:
    """The first in the order of `WHAT_IS_FULL`; "" when nothing is."""
    full = {name for name, share in result.busy.items() if share >= FULL_SHARE}
    if "worker" in full and result.busy["pages"] > result.busy["worker"] / 2:
        full.add("pages")
    return next((name for name in WHAT_IS_FULL if name in full), "")


def _what_is_in(costs: Costs, place: Place, receives: int) -> str:
    rows = [
        [
            "*measured:* a segment takes of worker, PostgreSQL",
            f"{costs.worker_ms:.2f} ms, {costs.postgres_ms:.2f} ms of a processor",
        ],
        ["and writes to PostgreSQL's log", f"{costs.log_bytes / 1_000:.1f} kB"],
        ["a batch has", f"{receives * FEW.batch} messages"],
        ["*assumed:* PostgreSQL has", f"{place.postgres_processors} processors, a pooler for connections"],
        ["its disk has a settling, all that wait together, after", f"{place.flush_ms:g} ms"],
        ["and takes", f"{place.log_mb_a_second:g} MB/s"],
        ["a job's row is locked", f"for {place.locked_share:.0%} of a settling's work, and its commit"],
        [
            "round trips: SQS, PostgreSQL, cache",
            f"{place.sqs_ms:g} ms, {place.postgres_ms:g} ms, {place.cache_ms:g} ms",
        ],
        ["SQS has in flight, at most", f"{place.in_flight_messages:,} messages"],
        ["a worker has in hand", f"{FEW.lanes} batches"],
        ["a job has", f"{FEW.segments:,} segments, and a family of its own"],
        ["whose pages take", f"{place.family_mb:g} of the {place.memory_mb:g} MB for pages"],
        ["and come from Neo4j, once a job, in", f"{place.graph_ms:g} ms"],
        ["from the cache, once a worker if there is room, in", f"{place.pages_ms:g} ms of its processor"],
    ]
    return table(["what", "how much"], rows)


def _comparison(document: Document) -> str:
    head = ["", "segments/s", "model", "off by", "processors busy", "model"]
    rows = [
        [label, f"{rate:,.0f}", f"{model:,.0f}", f"{model / rate - 1:+.0%}", f"{busy:.0%}", f"{model_busy:.0%}"]
        for label, rate, busy, model, model_busy in points(document)
    ]
    return table(head, rows)


def _workers_and_jobs(costs: Costs, place: Place, workers: Sequence[int], jobs: Sequence[int], receives: int) -> str:
    usual = replace(FEW, receives=receives)
    columns = [replace(usual, jobs=count, mixed=mixed) for count in jobs for mixed in (False, True)[: min(count, 2)]]
    rows = [
        [f"{count:,}", *(_cell(forecast(costs, place, replace(column, workers=count))) for column in columns)]
        for count in workers
    ]
    return table(["workers", *map(_jobs, columns)], rows)


def _changes(costs: Costs, place: Place, loads: Sequence[Load]) -> str:
    before = [forecast(costs, place, load) for load in loads]
    rows = [["as it is, segments/s", *map(_cell, before)]]
    for title, (name, factor) in CHANGES.items():
        times = partial(_times, name=name, factor=factor)
        after = [forecast(times(costs), times(place), times(load)) for load in loads]
        rows.append([title, *(f"{new.rate / old.rate:.1f}" for new, old in zip(after, before, strict=True))])
    return table(["", *(f"{_some(load.workers, 'worker')}, {_jobs(load)}" for load in loads)], rows)


def _times[Part: (Costs, Place, Load)](part: Part, name: str, factor: float) -> Part:
    """With this field multiplied; the same if it has none of that name."""
    value = getattr(part, name, None)
    return part if value is None else replace(part, **{name: type(value)(value * factor)})


def _cell(result: Forecast) -> str:
    """Two digits: a model is no more exact."""
    return f"{float(f'{result.rate:.2g}'):,.0f} {what_is_full(result)}".strip()


def _jobs(load: Load) -> str:
    return _some(load.jobs, "job") + (", mixed" if load.mixed else "")


def _some(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' if count > 1 else ''}"


if __name__ == "__main__":
    print_a_file("simulation", "Print how many workers would do, from the costs of a run.", markdown)

"""What a run must show: each figure held against its limit. Pure, on the JSON of bench/out.

Invariant: nothing is left out because it looks bad: a profile that was run has all its checks, met or not.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bench.statistics import Spread, ratios

type Document = Mapping[str, Any]

NAIVE_TIMES = 200.0
CLOUD_NAIVE_TIMES = 100.0
FLOOR_SHARE = 1.0
FLOOR_CPU_TIMES = 1.0
MOVING_CPU_TIMES = 1.5
EARLIER_TIMES = 2.0
START_TIMES = 0.5
TEXTS_TIMES = 1.4
ROUND_TRIPS = 0.7
WARMING_ROUND_TRIPS = 4
COLD_TIMES = 1.2
GROWTH_TIMES = 1.3
NOISE = 1.05
"""Two runs of the very same thing differ by as much."""
WORKERS_SHARE = 0.9
FULL_LOAD = 0.9
PEAK_MB = 250.0
DOUBLED_TIMES = 1.2
EARLIER_PEAK_TIMES = 1.0
WATCHED_TIMES = 1.03


class Check(NamedTuple):
    """One line of the table."""

    what: str
    limit: str
    figure: str
    ok: bool


def checks(document: Document) -> list[Check]:
    """Every check of the profiles that were run."""
    profiles = document["profiles"]
    makers = {
        "standard": _standard,
        "cold": _cold,
        "start": _start,
        "pairs": _pairs,
        "texts": _texts,
        "large-job": _large_job,
        "cloud": _cloud,
        "memory": _memory,
        "watched": _watched,
    }
    return [check for name, make in makers.items() if name in profiles for check in make(profiles[name])]


def variant(profile: Document, label: str) -> Document:
    """The variant of that label."""
    return next(each for each in profile["variants"] if each["label"] == label)


def steady(each: Document) -> list[float]:
    """Segments a second, repeat by repeat."""
    return [run["steady"] for run in each["runs"]]


def cpu_ms(each: Document) -> list[float]:
    """The contestant's processor time a segment, repeat by repeat."""
    return [run["cpu_ms"]["contestants"] for run in each["runs"]]


def against(one: Document, other: Document) -> Spread:
    """How many times as fast one variant is as another."""
    return Spread.of(ratios(steady(one), steady(other)))


def show(spread: Spread, digits: int = 2) -> str:
    """The median, with the least and the greatest."""
    if spread.low == spread.high:
        return f"{spread.median:,.{digits}f}"
    return f"{spread.median:,.{digits}f} ({spread.low:,.{digits}f}–{spread.high:,.{digits}f})"


def _at_most(what: str, limit: float, measured: Spread, *, unit: str = "") -> Check:
    """The median is held against `limit`."""
    return Check(what, f"≤ {limit}{unit}", show(measured), measured.median <= limit)


def _standard(profile: Document) -> Iterator[Check]:
    worker, naive, floor = (variant(profile, label) for label in ("worker", "naive", "floor"))
    times, share = against(worker, naive), against(worker, floor)
    counted = worker["counted"]
    trips, warming = sum(counted["round_trips"].values()), counted["round_trips_in_all"]["neo4j"]
    yield Check("Steady rate, times the naive one", f"≥ {NAIVE_TIMES:.0f}", show(times, 0), times.median >= NAIVE_TIMES)
    yield Check(
        "Steady rate, share of the I/O floor", f"≥ {FLOOR_SHARE:.0%}", _percent(share), share.median >= FLOOR_SHARE
    )
    worker_ms = cpu_ms(worker)
    floor_times = Spread.of(ratios(worker_ms, cpu_ms(floor)))
    yield _at_most("Worker's processor time a segment, times the floor's", FLOOR_CPU_TIMES, floor_times)
    moving_times = Spread.of(ratios(worker_ms, profile["moving_ms"]))
    yield _at_most(
        "The same, times plain boto3's for receiving and deleting a message by tens", MOVING_CPU_TIMES, moving_times
    )
    yield Check("Round trips a segment, warm", f"≤ {ROUND_TRIPS}", f"{trips:.2f}", trips <= ROUND_TRIPS)
    yield Check(
        "Neo4j round trips to warm the family",
        f"≤ {WARMING_ROUND_TRIPS}",
        str(warming),
        warming <= WARMING_ROUND_TRIPS,
    )


def _cold(profile: Document) -> Iterator[Check]:
    times = profile["milliseconds"]
    spread = Spread.of(ratios(times["worker"], times["naive"]))
    yield _at_most("First segment of a cold job, times the naive one", COLD_TIMES, spread)


def _start(profile: Document) -> Iterator[Check]:
    times = profile["milliseconds"]
    spread = Spread.of(ratios(times["now"], times["before"]))
    yield _at_most("From process start to the first committed segment, times the earlier worker's", START_TIMES, spread)


def _texts(profile: Document) -> Iterator[Check]:
    first, last = profile["variants"][0], profile["variants"][-1]
    growth = against(first, last)
    yield _at_most(f"Cost of a segment, {first['label']} → {last['label']}", TEXTS_TIMES, growth, unit=" times")


def _pairs(profile: Document) -> Iterator[Check]:
    first, *others = profile["variants"]
    if not others:
        return
    for other in (each for each in others if each["value"] == others[-1]["value"]):
        growth = against(first, other)
        yield _at_most(
            f"Cost of a segment, {first['label']} → {other['label']} aligned a pair",
            GROWTH_TIMES,
            growth,
            unit=" times",
        )


def _large_job(profile: Document) -> Iterator[Check]:
    short, long = profile["variants"]
    growth = against(short, long)
    yield Check(
        f"Cost of a segment, a job of {short['label']} → {long['label']}",
        f"≤ 1 time, ± {NOISE - 1:.0%} noise",
        show(growth),
        growth.median <= NOISE,
    )


def _cloud(profile: Document) -> Iterator[Check]:
    naive, one, *more = profile["variants"]
    times = against(one, naive)
    yield Check(
        "Cloud: one worker, times the naive one",
        f"≥ {CLOUD_NAIVE_TIMES:.0f}",
        show(times, 0),
        times.median >= CLOUD_NAIVE_TIMES,
    )
    gain = against(one, profile["earlier"])
    yield Check(
        "Cloud: one worker, times the earlier worker", f"≥ {EARLIER_TIMES}", show(gain), gain.median >= EARLIER_TIMES
    )
    for several in more:
        share = efficiency(one, several)
        load = Spread.of(run["load"] for run in several["runs"])
        yield Check(
            f"Cloud: {several['label']}, share of as many times one",
            f"≥ {WORKERS_SHARE:.0%} until the processors are full",
            f"{_percent(share)}, processors {_percent(load)} busy",
            share.median >= WORKERS_SHARE or load.median >= FULL_LOAD,
        )


def efficiency(one: Document, several: Document) -> Spread:
    """The rate of n workers as a share of n times the rate of one."""
    return Spread.of(rate / several["value"] for rate in ratios(steady(several), steady(one)))


def _memory(profile: Document) -> Iterator[Check]:
    peaks = [peak_mb(each) for each in profile["variants"]]
    first = profile["variants"][0]
    yield Check(
        f"Peak memory of the worker, {first['label']}", f"< {PEAK_MB:.0f} MB", f"{peaks[0]:.0f} MB", peaks[0] < PEAK_MB
    )
    earlier = peak_mb(profile["earlier"])
    yield Check(
        "The same, times the earlier worker's",
        f"≤ {EARLIER_PEAK_TIMES}",
        f"{peaks[0] / earlier:.2f} of {earlier:.0f} MB",
        peaks[0] <= EARLIER_PEAK_TIMES * earlier,
    )
    for each, peak in zip(profile["variants"][1:], peaks[1:], strict=True):
        yield Check(
            f"Peak memory of the worker, {each['label']}",
            f"≤ {DOUBLED_TIMES} times that",
            f"{peak:.0f} MB, {peak / peaks[0]:.2f} times",
            peak <= DOUBLED_TIMES * peaks[0],
        )


def _watched(profile: Document) -> Iterator[Check]:
    without, with_metrics = map(cpu_ms, profile["variants"])
    times = Spread.of(ratios(with_metrics, without))
    yield _at_most("Processor time of a segment with metrics, times without", WATCHED_TIMES, times)
    share = 1 + (profile["telling"]["kept_us"] / 1_000) / Spread.of(without).median
    yield Check(
        "The same, from what the counting takes by itself", f"≤ {WATCHED_TIMES}", f"{share:.3f}", share <= WATCHED_TIMES
    )


def peak_mb(each: Document) -> float:
    """The greatest of all repeats."""
    runs: Sequence[Document] = each["runs"]
    return float(max(run["peak_mb"] for run in runs))


def _percent(spread: Spread) -> str:
    return (
        f"{spread.median:.0%}"
        if spread.low == spread.high
        else f"{spread.median:.0%} ({spread.low:.0%}–{spread.high:.0%})"
    )

"""The simulation of many workers: what is true of it whatever the figures, and that the document is what it prints."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import simulation
from bench.events import Clock, Process, Resource
from bench.model import Costs, Forecast, Load, Place, forecast, page_reads
from bench.simulation import CHANGES, FEW, Point, markdown, points, what_is_full

COSTS = Costs(worker_ms=0.4, postgres_ms=0.2, elsewhere_ms=0.1, log_bytes=2_000)
ROOM = Place(memory_mb=1e9, pages_ms=0.0, graph_ms=0.0, pages_trips=0)
"""Where pages cost nothing, so that all else can be reckoned by hand."""
NOISE = 1.04
"""Times are drawn, so that a mean of thousands of batches is off by as much."""
DOCUMENT = Path(__file__).parents[2] / "docs" / "performance.md"


def rate(place: Place = ROOM, costs: Costs = COSTS, **load: Any) -> float:
    """Segments a second."""
    return forecast(costs, place, Load(**{"workers": 1, "jobs": 1, **load})).rate


def test_who_came_first_has_it_first() -> None:
    clock = Clock()
    desk = Resource(clock)
    served: list[tuple[str, float]] = []

    def customer(name: str, comes_after: float) -> Process:
        yield comes_after
        yield desk
        yield 10.0
        served.append((name, clock.now))
        desk.release()

    for name, comes_after in (("third", 2.0), ("first", 0.0), ("second", 1.0)):
        clock.after(0.0, customer(name, comes_after))
    clock.run(lambda: len(served) == 3)
    assert served == [("first", 10.0), ("second", 20.0), ("third", 30.0)]
    assert desk.used == 30.0


def test_a_resource_that_is_used_in_part_counts_in_part() -> None:
    clock = Clock()
    desks = Resource(clock, 2)

    def customer() -> Process:
        yield desks
        yield 10.0
        desks.release()
        yield 10.0

    clock.after(0.0, customer())
    clock.run(lambda: clock.now >= 20.0)
    assert desks.used == 5.0


def test_one_batch_at_a_time_takes_the_sum_of_its_parts() -> None:
    write_ms = 10 * COSTS.log_bytes / (ROOM.log_mb_a_second * 1_000)
    latencies_ms = 2 * ROOM.sqs_ms + 2 * ROOM.postgres_ms + ROOM.flush_ms
    batch_ms = latencies_ms + 10 * (COSTS.worker_ms + COSTS.postgres_ms) + write_ms
    assert rate(lanes=1) == pytest.approx(10_000 / batch_ms, rel=NOISE - 1)


@pytest.mark.parametrize("lanes", [2, 4, 8, 16])
def test_lanes_of_a_worker_wait_as_mean_value_analysis_says(lanes: int) -> None:
    """Exact for one processor with exponential times and delays: https://en.wikipedia.org/wiki/Mean_value_analysis."""
    place = replace(ROOM, flush_ms=0.0, log_mb_a_second=1e12)
    delay_ms, work_ms = 2 * place.sqs_ms + 2 * place.postgres_ms, 10 * COSTS.worker_ms
    queue = 0.0
    for lane in range(1, lanes + 1):
        response_ms = work_ms * (1 + queue)
        throughput = lane / (delay_ms + response_ms)
        queue = throughput * response_ms
    free = replace(COSTS, postgres_ms=0.0, log_bytes=0.0)
    assert rate(place, free, lanes=lanes) == pytest.approx(10_000 * throughput, rel=NOISE - 1)


@pytest.mark.parametrize("jobs", [1, 4, 100])
@pytest.mark.parametrize("mixed", [False, True])
def test_more_workers_are_never_slower_until_something_is_full(jobs: int, mixed: bool) -> None:
    """Beyond that they may be: mixed batches hold rows while they wait for others."""
    one = rate(jobs=jobs, mixed=mixed)
    before = 0.0
    for workers in (1, 2, 4, 16, 64):
        result = forecast(COSTS, ROOM, Load(workers=workers, jobs=jobs, mixed=mixed))
        assert result.rate * NOISE > before
        if max(result.busy["row"], result.busy["PostgreSQL"]) < 0.4:
            assert result.rate == pytest.approx(workers * one, rel=0.1)
        if what_is_full(result):
            break
        before = result.rate


BOUNDS: dict[str, tuple[Place, dict[str, Any], float]] = {
    "worker": (ROOM, {"lanes": 16, "jobs": 100}, 1_000 / COSTS.worker_ms),
    "PostgreSQL": (ROOM, {"workers": 60, "jobs": 200}, 8 * 1_000 / COSTS.postgres_ms),
    "log": (replace(ROOM, log_mb_a_second=10.0), {"workers": 20, "jobs": 200}, 10e6 / COSTS.log_bytes),
    "row": (ROOM, {"workers": 20}, 10_000 / (5 * COSTS.postgres_ms * ROOM.locked_share + ROOM.flush_ms)),
    "in flight": (replace(ROOM, in_flight_messages=100), {"workers": 20, "jobs": 200, "lanes": 12}, 10 * 10_000 / 20.0),
    "machine": (replace(ROOM, shared_processors=2), {"workers": 8, "jobs": 20}, 2_000 / (0.4 + 0.2 + 0.1)),
}


@pytest.mark.parametrize("full", BOUNDS)
def test_what_is_full_is_named_and_bounds_the_rate(full: str) -> None:
    place, load, bound = BOUNDS[full]
    result = forecast(COSTS, place, Load(**{"workers": 1, "jobs": 1, **load}))
    assert bound / 1.6 < result.rate < bound * NOISE
    assert result.busy[full] > 0.85
    if full != "machine":
        assert what_is_full(result) == full


def test_nothing_is_full_while_workers_wait_for_round_trips() -> None:
    assert what_is_full(forecast(COSTS, ROOM, replace(FEW, lanes=2))) == ""


def test_the_row_of_one_job_bounds_that_job_and_not_two() -> None:
    place = replace(ROOM, flush_ms=0.0, locked_share=0.9)
    bound = 10_000 / (5 * COSTS.postgres_ms * place.locked_share)
    assert rate(place, workers=20) < bound * NOISE
    assert rate(place, workers=20, jobs=2) > 1.7 * bound
    assert rate(place, workers=20, jobs=4, mixed=True) < bound * NOISE, "a mixed batch locks the rows of all its jobs"


def test_commits_that_come_while_the_disk_writes_are_written_together() -> None:
    place = replace(ROOM, flush_ms=5.0)
    assert rate(place, workers=20) < 10_000 / place.flush_ms * NOISE
    assert rate(place, workers=20, jobs=200) > 5 * 10_000 / place.flush_ms


def test_pages_are_read_once_a_job_and_again_by_each_worker_that_meets_it() -> None:
    batches = FEW.segments / FEW.batch
    assert page_reads(Place(), FEW) == pytest.approx((1 / batches, 1 / batches))
    assert page_reads(Place(), replace(FEW, workers=2)) == pytest.approx((1 / batches, 2 / batches))
    assert page_reads(Place(), replace(FEW, workers=10**9)) == pytest.approx((1 / batches, 1.0))


def test_pages_are_read_each_time_when_there_is_no_room_for_them() -> None:
    roomy, narrow = (Place(memory_mb=mb, family_mb=1.0) for mb in (100, 50))
    load = replace(FEW, jobs=100)
    assert page_reads(roomy, load)[1] == pytest.approx(10 / load.segments)
    assert page_reads(narrow, load)[1] == pytest.approx(0.5, abs=0.01)
    assert what_is_full(forecast(COSTS, replace(narrow, memory_mb=1), load)) == "pages"


def test_two_receives_a_batch_halve_the_calls_to_postgres() -> None:
    latencies_ms = 4 * ROOM.sqs_ms + 2 * ROOM.postgres_ms + ROOM.flush_ms
    batch_ms = latencies_ms + 20 * (COSTS.worker_ms + COSTS.postgres_ms)
    assert rate(lanes=1, receives=2) == pytest.approx(20_000 / batch_ms, rel=NOISE - 1)


def test_the_same_figures_give_the_same_answer() -> None:
    assert rate(workers=3, jobs=5, mixed=True) == rate(workers=3, jobs=5, mixed=True)


def a_variant(label: str, value: int, others: float = 0.0) -> dict[str, Any]:
    """A line of a profile, with one run."""
    cpu_ms = {"contestants": 0.4, "postgres": 0.2, "sqs": 0.06, "proxies": 0.04, "harness": 0.0}
    run = {"steady": 1_000.0, "load": 0.5, "others": others, "cpu_ms": cpu_ms, "wal_bytes": 2_000.0}
    return {"label": label, "value": value, "runs": [run]}


def a_document(others: float = 0.0, messages: float = 10.0) -> dict[str, Any]:
    """A small run, with so many messages a batch."""
    latencies = {"sqs": 8.0, "postgres": 1.0, "neo4j": 5.0, "cache": 1.0}
    lanes = [a_variant(f"{count} in hand", count, others) for count in (1, 16)]
    cloud = [a_variant("naive", 0), a_variant("1 worker", 1), a_variant("2 workers", 2)]
    workers = [a_variant("1 worker, one job", 1), a_variant("2 workers, four jobs", 2)]
    profiles = {
        "standard": {"variants": [{**a_variant("worker", 0), "counted": {"round_trips": {"postgres": 2 / messages}}}]},
        "lanes": {"variants": lanes, "latencies_ms": latencies},
        "cloud": {"variants": cloud, "latencies_ms": latencies},
        "workers": {"variants": workers},
    }
    return {"machine": {"processors": 2}, "profiles": profiles}


def by_label(document: dict[str, Any]) -> dict[str, Point]:
    """Its points."""
    return {point.label: point for point in points(document)}


def test_the_model_stands_beside_every_point_that_was_measured() -> None:
    measured = by_label(a_document())
    assert [*measured] == [
        "lanes: 1 in hand",
        "lanes: 16 in hand",
        "cloud: 1 worker",
        "cloud: 2 workers",
        "workers: 1 worker, one job",
        "workers: 2 workers, four jobs",
    ]
    one, sixteen = measured["lanes: 1 in hand"], measured["lanes: 16 in hand"]
    assert (one.rate, one.busy) == (1_000.0, 0.5)
    assert one.model_rate == pytest.approx(10_000 / (18 + 7 + 0.2 + 0.1), rel=0.06)
    assert sixteen.model_rate == measured["cloud: 1 worker"].model_rate, "the same settings, the same costs"
    assert measured["workers: 2 workers, four jobs"].model_rate == pytest.approx(2_000 / 0.7, rel=0.05)


def test_the_model_is_asked_for_what_was_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Load] = []

    def note(costs: Costs, place: Place, load: Load) -> Forecast:
        asked.append(load)
        return forecast(costs, place, load)

    monkeypatch.setattr(simulation, "forecast", note)
    by_label(a_document())
    two = replace(FEW, workers=2)
    assert asked == [replace(FEW, lanes=1), FEW, FEW, two, FEW, replace(two, jobs=4, mixed=True)]
    by_label(a_document(messages=18.5))
    assert {load.messages for load in asked[6:]} == {20}


def test_what_others_take_of_the_machine_makes_it_slower() -> None:
    alone, beside = (by_label(a_document(others))["lanes: 16 in hand"] for others in (0.0, 0.5))
    assert beside.model_rate < 0.7 * alone.model_rate
    assert beside.model_busy > alone.model_busy


def test_the_document_is_what_is_printed() -> None:
    """All but the figures of a run: text, what is assumed, and the heads of lines."""
    document = DOCUMENT.read_text(encoding="utf-8").splitlines()
    printed = markdown(a_document(), workers=[1], jobs=[1], changed_at=[FEW]).splitlines()
    assert {line for line in printed if not line.startswith("|")} <= {*document}
    ours, theirs = cells(printed), cells(document)
    begin = next(at for at, row in enumerate(ours) if row[0].startswith("*assumed:*"))
    assumed = ours[begin : begin + 11]
    assert assumed[-1][0].startswith("from the cache")
    assert all(row in theirs for row in assumed)
    assert {*CHANGES} <= {row[0] for row in ours} & {row[0] for row in theirs}


def cells(lines: Sequence[str]) -> list[list[str]]:
    """Of all tables, row by row."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]

"""The benchmark's harness on real services, with a tiny family: all three contestants do the same work."""

import json
from dataclasses import replace

from bench.generate import generate_family
from bench.graphs import family_name, provide
from bench.ground import Ground
from bench.jobs import as_sent
from bench.reference import reference_walk
from bench.runner import run_with_results
from bench.runs import Plan
from bench.sizes import TINY
from devstack.stack import Stack


def test_the_contestants_give_the_same_results_and_are_measured(stack: Stack) -> None:
    size = TINY.family
    with Ground.open(stack) as ground:
        text = provide(ground.driver, size, 0, print)
        plan = Plan(text=text, segments=size.segments_per_text)
        observed, by_worker = run_with_results(ground, replace(plan, way="observed"))
        counted, by_naive = run_with_results(ground, replace(plan, kind="naive", way="counted"))
        texts = [as_sent(result) for result in by_worker.values()]
        timed, by_floor = run_with_results(ground, replace(plan, kind="floor", results=texts))

    family = generate_family(*size[:3], seed=0, reach=size.reach, name=family_name(size, 0))
    asked = family.job_segments(family.manifestations[0])
    assert by_worker == {row.id: reference_walk(family, text.manifestation, row.start, row.end) for row in asked}
    assert by_naive == by_worker
    assert sorted(map(json.dumps, by_floor.values())) == sorted(map(json.dumps, by_worker.values()))

    assert observed.segments == counted.segments == timed.segments == size.segments_per_text
    assert observed.batch_ms["p50"] > 0
    assert observed.neo4j_seconds
    assert counted.round_trips["neo4j"] > 1 > counted.round_trips["cache"]
    assert timed.from_start is not None
    assert min(timed.steady, timed.from_start, timed.cpu_seconds, timed.peak_mb) > 0

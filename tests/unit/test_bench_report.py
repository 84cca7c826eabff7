"""The benchmark's arithmetic, and that its report holds every figure against its limit."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import _parser
from bench.graphs import SegmentSpan, Text, family_name
from bench.jobs import as_sent
from bench.limits import checks
from bench.machine import busy_warning
from bench.processors import Reading
from bench.profiles import PROFILES
from bench.report import TITLES, markdown, must_show, print_a_file, table
from bench.sizes import FULL, QUICK
from bench.statistics import Spread, quantile, ratios, skipped_at_start, steady_rate, without_start

TRIPS = {"sqs": 0.2, "postgres": 0.2, "neo4j": 0.0, "cache": 0.0}


def a_run(steady: float, **changes: Any) -> dict[str, Any]:
    """A run as JSON holds it."""
    cpu_ms = {"contestants": 0.5, "postgres": 0.2, "sqs": 0.7, "neo4j": 0.0, "cache": 0.0, "proxies": 0.0}
    run = {
        "steady": steady,
        "from_start": steady / 2,
        "load": 0.5,
        "others": 0.01,
        "cpu_ms": cpu_ms,
        "cpu_seconds": 3.0,
    }
    return {**run, "peak_mb": 150.0, "wal_bytes": 2_000.0, **changes}


def a_variant(label: str, value: float, *rates: float, **changes: Any) -> dict[str, Any]:
    """A variant with a run a rate, looked at in every way."""
    observed = a_run(rates[0], batch_ms={"p50": 12.0, "p95": 20.0, "p99": 30.0}, neo4j_seconds=0.2)
    in_all = {"sqs": 900, "postgres": 900, "neo4j": 3, "cache": 7}
    counted = a_run(rates[0], round_trips=TRIPS, round_trips_in_all=in_all)
    runs = [a_run(rate, **changes) for rate in rates]
    return {"label": label, "value": value, "runs": runs, "observed": observed, "counted": counted}


def a_document(**profiles: Mapping[str, Any]) -> dict[str, Any]:
    """What a run leaves, with these profiles."""
    machine = {
        "began": "2025-11-18T10:30:45+00:00",
        "processors": 2,
        "model": "a processor",
        "memory_gb": 24.0,
        "system": "Linux",
        "load_before": [0.1, 0.2, 0.3],
        "commit": "abc",
    }
    head = {"machine": machine, "versions": {"Python": "3.12"}, "command": "python -m bench", "scale": "full"}
    return {**head, "repeats": 3, "seed": 0, "warning": None, "profiles": profiles}


STANDARD: dict[str, Any] = {
    "variants": [
        a_variant("worker", 0, 2_000, 2_400, 1_600),
        a_variant("naive", 1, 10, 10, 10),
        a_variant("floor", 2, 1_250, 1_500, 1_600),
    ],
    "moving_ms": [0.5, 0.4, 0.25],
}
EARLIER = a_variant("1 worker, earlier", 0, 160)


def verdicts(**profiles: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Figure and verdict of every check."""
    return [(check.figure, check.ok) for check in checks(a_document(**profiles))]


def test_a_spread_is_the_median_and_the_ends() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)
    assert Spread.of([1.0, 2.0]).median == 1.5
    with pytest.raises(ValueError, match="no values"):
        Spread.of([])


def test_the_steady_rate_leaves_out_the_start() -> None:
    times = [10.0, 20.0, *(20.0 + number / 10 for number in range(1, 19))]
    assert skipped_at_start(20) == 2
    assert steady_rate(times, 2) == pytest.approx(10.0)
    for skipped in (0, 20):
        with pytest.raises(ValueError, match="cannot be skipped"):
            steady_rate(times, skipped)


@pytest.mark.parametrize(("segments", "warmed_up", "skipped"), [(1, 0, 1), (100, 0, 10), (101, 0, 11), (110, 10, 20)])
def test_a_tenth_of_what_follows_the_warm_up_is_left_out(segments: int, warmed_up: int, skipped: int) -> None:
    assert skipped_at_start(segments, warmed_up) == skipped


def test_quantiles_are_values_that_occurred() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [quantile(values, share) for share in (0.0, 0.5, 0.95, 0.99, 1.0)] == [1.0, 50.0, 95.0, 99.0, 100.0]
    assert quantile([7.0], 0.99) == 7.0
    assert without_start(values)[0] == 90.0


def test_ratios_are_taken_repeat_by_repeat() -> None:
    assert ratios([10.0, 40.0], [5.0, 10.0]) == [2.0, 4.0]
    with pytest.raises(ValueError, match="longer"):
        ratios([1.0], [1.0, 2.0])


def test_readings_are_subtracted_group_by_group() -> None:
    earlier = Reading({"postgres": 1.0, "sqs": 2.0}, machine=10.0, wall=20.0)
    passed = Reading({"postgres": 1.5, "sqs": 2.0}, machine=11.0, wall=24.0).since(earlier)
    assert passed == Reading({"postgres": 0.5, "sqs": 0.0}, 1.0, 4.0)
    assert passed.load == 0.25
    assert passed.others == 0.125


def test_segments_are_picked_evenly() -> None:
    text = Text("root", tuple(SegmentSpan(str(number), number, number + 1) for number in range(10)))
    assert [segment.id for segment in text.pick(4)] == ["0", "2", "5", "7"]
    assert text.pick(10) == list(text.segments)


def test_families_have_names_of_one_length_that_tell_them_apart() -> None:
    names = {family_name(FULL.family._replace(texts=texts), seed) for texts in (11, 200) for seed in (0, 1)}
    assert len(names) == 4
    assert {len(name) for name in names} == {9}


def test_a_result_is_sent_with_its_keys_in_the_order_of_the_worker() -> None:
    span = {"end": 2, "start": 1}
    entry = {"segments": [{"span": span, "segment_id": "é"}], "manifestation_id": "m"}
    assert as_sent([entry]) == (
        '[{"manifestation_id": "m", "segments": [{"segment_id": "é", "span": {"start": 1, "end": 2}}]}]'
    )


def test_the_standard_profile_is_held_against_its_limits() -> None:
    assert verdicts(standard=STANDARD) == [
        ("200 (160–240)", True),
        ("160% (100%–160%)", True),
        ("1.00", True),
        ("1.25 (1.00–2.00)", True),
        ("0.40", True),
        ("3", True),
    ]


def test_what_is_not_met_is_said() -> None:
    dear = a_variant("worker", 0, 900, 900, 900, cpu_ms={**a_run(0)["cpu_ms"], "contestants": 0.7})
    _, naive, floor = STANDARD["variants"]
    slow = {**STANDARD, "variants": [dear, naive, floor]}
    assert [ok for _, ok in verdicts(standard=slow)] == [False, False, False, False, True, True]
    assert must_show(a_document(standard=slow)).count("**NOT MET**") == 4


def test_growth_is_held_against_the_first_variant() -> None:
    profile = {
        "variants": [
            a_variant("1,500", 1_500, 1_000),
            a_variant("5,000", 5_000, 100),
            a_variant("50,000", 50_000, 800),
            a_variant("50,000 in short texts", 50_000, 700),
        ]
    }
    assert verdicts(pairs=profile) == [("1.25", True), ("1.43", False)]
    assert verdicts(pairs={"variants": profile["variants"][:1]}) == []


def test_a_long_job_may_be_slower_by_noise_only() -> None:
    short = a_variant("2,000 segments", 2_000, 1_000)
    assert verdicts(**{"large-job": {"variants": [short, a_variant("20,000 segments", 20_000, 960)]}}) == [
        ("1.04", True)
    ]
    assert verdicts(**{"large-job": {"variants": [short, a_variant("20,000 segments", 20_000, 900)]}}) == [
        ("1.11", False)
    ]


def test_more_workers_must_be_worth_it_until_the_processors_are_full() -> None:
    first = [a_variant("naive", 0, 4), a_variant("1 worker", 1, 400)]
    idle, full = (a_variant("2 workers", 2, 600, load=load) for load in (0.6, 0.95))
    assert verdicts(cloud={"variants": [*first, a_variant("2 workers", 2, 760)], "earlier": EARLIER})[2] == (
        "95%, processors 50% busy",
        True,
    )
    assert verdicts(cloud={"variants": [*first, idle], "earlier": EARLIER})[2] == ("75%, processors 60% busy", False)
    assert verdicts(cloud={"variants": [*first, full], "earlier": EARLIER})[2] == ("75%, processors 95% busy", True)


@pytest.mark.parametrize(("earlier", "figure", "ok"), [(200, "2.00", True), (201, "1.99", False)])
def test_in_the_cloud_a_worker_is_held_against_the_earlier_one(earlier: float, figure: str, ok: bool) -> None:
    first = [a_variant("naive", 0, 4), a_variant("1 worker", 1, 400)]
    cloud = {"variants": first, "earlier": a_variant("1 worker, earlier", 0, earlier)}
    assert verdicts(cloud=cloud) == [("100", True), (figure, ok)]
    assert "1 worker, earlier" in markdown(a_document(cloud=cloud))


@pytest.mark.parametrize(("many", "figure", "ok"), [(720, "1.39", True), (700, "1.43", False)])
def test_wide_families_are_held_against_the_standard_one(many: float, figure: str, ok: bool) -> None:
    profile = {"variants": [a_variant("11 texts", 11, 1_000), a_variant("200 texts", 200, many)]}
    assert verdicts(texts=profile) == [(figure, ok)]


@pytest.mark.parametrize(("now", "figure", "ok"), [(500.0, "0.50", True), (510.0, "0.51", False)])
def test_the_start_is_held_against_the_earlier_worker_s(now: float, figure: str, ok: bool) -> None:
    profile = {"milliseconds": {"now": [now], "before": [1_000.0]}, "cpu_milliseconds": {"now": [1.0], "before": [2.0]}}
    assert verdicts(start=profile) == [(figure, ok)]
    assert "| 1 worker, earlier | 1,000 |      2 |" in markdown(a_document(start=profile))


def test_memory_counts_with_its_greatest_peak() -> None:
    small = a_variant("200 texts", 200, 1_000, 1_000)
    small["runs"][1]["peak_mb"] = 240.0
    large = a_variant("400 texts", 400, 1_000, peak_mb=300.0)
    earlier = a_variant("200 texts, earlier", 0, 1_000, peak_mb=239.0)
    assert verdicts(memory={"variants": [small, large], "earlier": earlier}) == [
        ("240 MB", True),
        ("1.00 of 239 MB", False),
        ("300 MB, 1.25 times", False),
    ]


def test_cold_segments_are_compared_repeat_by_repeat() -> None:
    profile = {"milliseconds": {"worker": [150.0, 300.0], "naive": [100.0, 100.0]}}
    assert verdicts(cold=profile) == [("2.25 (1.50–3.00)", False)]


def test_the_report_shows_every_profile_and_warning() -> None:
    trips = {kind: {"sqs": 2, "postgres": 2, "neo4j": 3, "cache": 7} for kind in ("worker", "naive")}
    cold = {"milliseconds": {"worker": [150.0], "naive": [100.0]}, "round_trips": trips}
    plain = {"label": "1 worker, one job", "value": 1, "runs": [a_run(500.0, from_start=None)]}
    document = a_document(standard=STANDARD, cold=cold, workers={"variants": [plain]})
    document["warning"] = "WARNING: busy"
    text = markdown(document)
    for part in (
        "**WARNING: busy**",
        "2 processors (a processor)",
        "2,000.0 (1,600.0–2,400.0)",
        "worker CPU, times the floor's",
        "12.0 / 20.0 / 30.0",
        "0.2 / 0.2 / 0 / 0 = 0.4",
        TITLES["workers"],
        "## Must show",
    ):
        assert part in text
    workers = text.partition(TITLES["workers"])[2].partition("##")[0]
    assert "batch ms" not in workers, "a column that nobody fills"


def test_disturbed_runs_are_told() -> None:
    noisy = {"variants": [a_variant("1 worker", 1, 500, 500, others=0.2), a_variant("2 workers", 2, 900)]}
    assert "2 of 3 timed runs were disturbed" in markdown(a_document(workers=noisy))
    assert "disturbed" not in markdown(a_document(standard=STANDARD))


@pytest.mark.parametrize(("watched_ms", "ok"), [(0.51, True), (0.52, False)])
def test_what_watching_costs_is_held_against_its_limit(watched_ms: float, ok: bool) -> None:
    watched = a_variant("watched", 1, 990, cpu_ms={"contestants": watched_ms})
    telling = {"told_to_nobody_us": 1.0, "kept_us": (watched_ms - 0.5) * 1_000}
    document = a_document(watched={"variants": [a_variant("not watched", 0, 1_000), watched], "telling": telling})
    assert [check.ok for check in checks(document)] == [ok, ok]


def test_small_sizes_are_marked() -> None:
    assert "but small sizes" in must_show({**a_document(standard=STANDARD), "scale": QUICK.name})


def test_a_table_is_aligned() -> None:
    assert table(["what", "n"], [["a", "1"], ["long name", "1,000"]]) == (
        "| what      |     n |\n| --------- | ----: |\n| a         |     1 |\n| long name | 1,000 |"
    )


def test_a_busy_machine_is_warned_of() -> None:
    assert busy_warning({"load_before": [0.4], "processors": 2}) is None
    assert "load average is 3.0" in (busy_warning({"load_before": [3.0], "processors": 2}) or "")


def test_profiles_are_chosen_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert _parser().parse_args([]).profile == [*PROFILES] == [*TITLES]
    assert _parser().parse_args(["--profile", "cold,pairs"]).profile == ["cold", "pairs"]
    with pytest.raises(SystemExit):
        _parser().parse_args(["--profile", "cold,warm"])
    assert "no such profile: warm" in capsys.readouterr().err


def test_the_picture_is_drawn_of_whatever_was_measured(tmp_path: Path) -> None:
    from bench.plot import draw

    cloud = {"variants": [a_variant("naive", 0, 4), a_variant("1 worker", 1, 400), a_variant("2 workers", 2, 760)]}
    draw(a_document(standard=STANDARD, cloud=cloud), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("text", [None, "no JSON", "{}", "[]"])
def test_a_file_that_is_no_run_is_named(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.json"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(sys, "argv", ["report", str(path)])
    with pytest.raises(SystemExit) as ended:
        print_a_file("report", "", markdown)
    assert ended.value.code == 2
    assert f"{path} can't be used: " in capsys.readouterr().err

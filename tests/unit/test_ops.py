"""The alert rules and the dashboard: they parse, and use only what is served."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from app.sqs.queue import Queue
from app.threads.gate import Gate
from app.threads.progress import Progress
from app.threads.stopping import Stop
from app.web.counting import Requests
from app.worker.counts import Counts
from app.worker.exposition import Exposition, Watched
from app.worker.health import Checkup
from app.worker.in_flight import InFlight
from app.worker.lookout import Lookout
from app.worker.tally import Tally
from tests.support.watching import OF_A_WORKER, OF_THE_HTTP_SIDE, read_documented, read_samples, read_served

OPS: Final = Path(__file__).resolve().parents[2] / "ops"
ALERTS: Final = OPS / "prometheus" / "alerts.yml"
DASHBOARD: Final = OPS / "grafana" / "dashboard.json"
BY_PROMETHEUS: Final = frozenset({"job", "instance"})
"""Labels that a scrape adds."""


class Used(NamedTuple):
    """A metric in an expression: with these labels, (name, value) where a value is written out."""

    name: str
    labels: tuple[tuple[str, str | None], ...]


def served_text() -> str:
    """What a worker with a cache serves at its start, and the HTTP side after a request."""
    requests = Requests()
    requests.add("GET", "/jobs", 200, 0.1)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(requests)
    return worker_text() + generate_latest(registry).decode()


def worker_text() -> str:
    gate = Gate()
    queue = Queue(cast(Any, None), "https://sqs/1/segments")
    checkup = Checkup(gate, Progress(), Stop(), ("SQS", "PostgreSQL", "Neo4j"), stall_seconds=600)
    watched = Watched(Counts(), Tally(), InFlight(), checkup, Lookout(gate, queue), lambda: True)
    return Exposition(watched).answer().body.decode()


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return list(json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"])


def expressions() -> list[str]:
    """All of both files, Grafana's variables filled in."""
    of_panels = [target["expr"] for panel in panels() for target in panel["targets"]]
    filled = [text.replace("$__rate_interval", "5m").replace("$job", ".*") for text in of_panels]
    return [rule["expr"] for rule in rules()] + filled


def uses(expression: str) -> Iterator[Used]:
    """Each metric with the labels that are matched; ValueError for what Prometheus would not take."""
    found: list[promql_parser.VectorSelector] = []

    def look(part: object) -> bool:
        if isinstance(part, promql_parser.VectorSelector):
            found.append(part)
        elif isinstance(part, promql_parser.MatrixSelector):
            found.append(part.vector_selector)
        return True

    promql_parser.walk(promql_parser.parse(expression), look)
    assert found, expression
    for selector in found:
        matchers = selector.matchers.matchers
        equal = promql_parser.MatchOp.Equal
        yield Used(
            str(selector.name), tuple((each.name, each.value if each.op == equal else None) for each in matchers)
        )


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_uses_what_is_served(expression: str) -> None:
    samples = read_samples(served_text())
    names = {name for name, _ in samples} | set(read_served(served_text()))
    for used in uses(expression):
        assert used.name in names
        served = {label for name, labels in samples if name == used.name for label in labels}
        for label, value in used.labels:
            assert label in BY_PROMETHEUS or label in {name for name, _ in served}, (used.name, label)
            assert value is None or label in BY_PROMETHEUS or (label, value) in served, (used.name, label, value)


def test_labels_that_results_are_grouped_by_exist() -> None:
    labels = {label for _, pairs in read_samples(served_text()) for label, _ in pairs} | BY_PROMETHEUS
    grouped = {
        label.strip()
        for expression in expressions()
        for group in re.findall(r"\b(?:by|on|ignoring) \(([^)]*)\)", expression)
        for label in group.split(",")
    }
    assert grouped <= labels


def test_nothing_that_is_counted_is_left_unwatched() -> None:
    used = {each.name for expression in expressions() for each in uses(expression)}
    seen = {re.sub("_(bucket|sum|count)$", "", name) for name in used}
    documented = {*read_documented(OF_A_WORKER), *read_documented(OF_THE_HTTP_SIDE)}
    assert {name for name in documented if name.startswith("srp_")} <= seen


def test_an_alert_tells_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert re.fullmatch(r"([A-Z][a-z]+)+", rule["alert"])
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert set(rule["annotations"]) == {"summary", "description"}
        assert (
            {"alert", "expr", "labels", "annotations"} <= set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        )


def test_every_alert_is_seen_to_fire() -> None:
    told = set(re.findall(r'alertname="(\w+)"', (OPS / "prometheus" / "alerts_test.yml").read_text(encoding="utf-8")))
    assert told == {rule["alert"] for rule in rules()}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not there: apt-get install prometheus")
def test_each_fires_when_it_should_and_no_other_does() -> None:
    done = subprocess.run(
        ["promtool", "test", "rules", OPS / "prometheus" / "alerts_test.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_variable_of_a_text_is_a_label_that_the_alert_has() -> None:
    for rule in rules():
        texts = " ".join(rule["annotations"].values())
        for label in re.findall(r"\$labels\.(\w+)", texts):
            assert re.search(rf"by \([^)]*\b{label}\b", rule["expr"]), rule["alert"]


def test_the_panels_lie_side_by_side_and_say_what_they_show() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in panels()}) == len(places)
    assert all(panel["title"] and panel["description"] for panel in panels())


@pytest.mark.parametrize(
    "wrong", ["srp_segments", 'srp_segments_total{outcome="broken"}', "srp_segments_total{fate!='x'}"]
)
def test_what_is_not_served_is_found(wrong: str) -> None:
    with pytest.raises(AssertionError):
        test_an_expression_uses_what_is_served(wrong)

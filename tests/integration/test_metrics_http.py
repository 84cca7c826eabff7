"""What the HTTP side tells Prometheus: all that is documented and nothing else, true, and true without a service."""

import re
import sys
from collections.abc import Callable, Mapping

import httpx
import pytest

from app.sqs.queue import Outgoing
from tests.support.engine import Engine
from tests.support.jobs import make_job
from tests.support.services import Queues
from tests.support.watching import DOCUMENT, OF_THE_HTTP_SIDE, read_documented, read_samples, read_served

CLOSED = "127.0.0.1:1"
OF_SQS = {"srp_backlog_messages", "srp_dead_letter_messages"}
OF_POSTGRES = {"srp_oldest_unfinished_job_seconds", "srp_outbox_unsent", "srp_outbox_lag_seconds"}
SERVICES = ("PostgreSQL", "Neo4j", "SQS")


def samples(client: httpx.Client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return read_samples(answer.text)


def test_what_waits_is_told_without_a_worker_and_all_of_it_is_documented(
    client: httpx.Client, engine: Engine, queues: Queues
) -> None:
    job_id = make_job(engine, 3)
    queues.segments.send([Outgoing("one"), Outgoing("two")])
    queues.dead_letters.send([Outgoing("dead")])
    for path in (f"/jobs/{job_id}", "/jobs/none", "/nowhere", "/metrics"):
        client.get(path)
    client.request("FROB", "/jobs")
    found = samples(client)
    assert found["srp_backlog_messages", ()] == 2
    assert found["srp_dead_letter_messages", ()] == 1
    assert found["srp_oldest_unfinished_job_seconds", ()] > 0
    assert found["srp_outbox_unsent", ()] == found["srp_outbox_lag_seconds", ()] == 0
    assert {service: found["srp_dependency_up", (("service", service),)] for service in SERVICES} == dict.fromkeys(
        SERVICES, 1
    )
    assert {labels: value for (name, labels), value in found.items() if name == "srp_http_requests_total"} == {
        (("method", "GET"), ("route", "/jobs/{job_id}"), ("status", "200")): 1,
        (("method", "GET"), ("route", "/jobs/{job_id}"), ("status", "404")): 1,
        (("method", "GET"), ("route", "none"), ("status", "404")): 1,
        (("method", "GET"), ("route", "/metrics"), ("status", "200")): 1,
        (("method", "other"), ("route", "/jobs"), ("status", "405")): 1,
    }
    assert found["srp_http_request_seconds_count", (("route", "/jobs/{job_id}"),)] == 2
    assert found["srp_http_request_seconds_sum", (("route", "/jobs/{job_id}"),)] > 0
    served = read_served(client.get("/metrics").text)
    own = read_documented(OF_THE_HTTP_SIDE)
    assert {name: each for name, each in served.items() if name in own} == own
    assert set(re.findall(r"`(srp_\w+)`", DOCUMENT.read_text(encoding="utf-8"))) >= OF_SQS | OF_POSTGRES
    others = {name for name in served if not name.startswith("process_")} - set(own)
    assert others == OF_SQS | OF_POSTGRES
    assert any(name.startswith("process_") for name in served) == (sys.platform == "linux")


@pytest.mark.parametrize(
    ("variable", "value", "down", "untold"),
    [
        ("POSTGRES_URL", f"postgresql://u:hidden@{CLOSED}/d", "PostgreSQL", OF_POSTGRES),
        ("NEO4J_URI", f"bolt://{CLOSED}", "Neo4j", set()),
        ("AWS_ENDPOINT_URL_SQS", f"http://{CLOSED}", "SQS", OF_SQS),
    ],
)
def test_a_service_that_is_down_is_told_and_costs_its_own_figures_only(
    serve: Callable[[Mapping[str, str]], httpx.Client],
    environment: dict[str, str],
    variable: str,
    value: str,
    down: str,
    untold: set[str],
) -> None:
    found = samples(serve({**environment, variable: value}))
    assert {service: found["srp_dependency_up", (("service", service),)] for service in SERVICES} == {
        service: service != down for service in SERVICES
    }
    assert {name for name, _ in found} & (OF_SQS | OF_POSTGRES) == (OF_SQS | OF_POSTGRES) - untold

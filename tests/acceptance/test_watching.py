"""A real worker that is watched: what it serves, what that says of a job and of outages, and what is refused."""

import socket
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator

import pytest

from app.sqs.queue import Outgoing
from devstack.families import Family
from devstack.stack import Stack
from tests.support.answers import EXAMPLES, read_example
from tests.support.endstate import is_over, load_job
from tests.support.engine import Engine
from tests.support.services import Queues
from tests.support.watching import address_of, fetch, fetch_json, read_documented, read_samples, read_served
from tests.support.worker import Worker, wait_until

SUBCLASS = """
from app.config import get
from app.main import SimpleConsumer
class Mine(SimpleConsumer):
    def handle_message(self, message):
        print("mine:", message.Body, flush=True)
Mine(queue_url=get("SQS_QUEUE_URL")).start()
"""


@pytest.fixture
def mended(stack: Stack) -> Iterator[Stack]:
    """The stack, whole again afterwards."""
    yield stack
    stack.up()


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    """Watched, on any free port."""
    return {**environment, "METRICS_PORT": "0"}


def value(address: str, name: str, **labels: str) -> float | None:
    """Of one sample, now."""
    return read_samples(fetch(f"{address}/metrics")[1]).get((name, tuple(sorted(labels.items()))))


def test_a_job_is_seen_in_what_is_served_and_all_of_that_is_documented(
    environment: dict[str, str], engine: Engine, queues: Queues, load_graph: Callable[[Family], None]
) -> None:
    family, _ = read_example(EXAMPLES / "small_family.json")
    load_graph(family)
    job = str(uuid.uuid4())
    bodies = load_job(engine, family, family.manifestations[0], job_id=job)
    poison = "this is no JSON"
    with Worker(environment) as worker:
        address = address_of(worker)
        worker.wait_for("Consuming")
        queues.segments.send([Outgoing(body) for body in [*bodies, poison]])
        wait_until(lambda: is_over(engine, job), "the job to end")
        wait_until(
            lambda: value(address, "srp_messages_total", outcome="done") == len(bodies), "the messages to be counted"
        )
        wait_until(lambda: value(address, "srp_dead_letter_messages") == 1, "the next look at the queues")
        status, text = fetch(f"{address}/metrics")
        live, ready = fetch_json(f"{address}/health/live"), fetch_json(f"{address}/health/ready")
        assert worker.stop() == 0
        assert "Traceback" not in worker.log()
    assert status == 200
    assert read_served(text) == read_documented(with_process=sys.platform == "linux")
    samples = read_samples(text)
    assert samples["srp_segments_total", (("outcome", "completed"),)] == len(bodies)
    assert samples["srp_segments_total", (("outcome", "failed"),)] == 0
    assert samples["srp_messages_total", (("outcome", "dead_lettered"),)] == 1
    for step in ("claim", "walk", "settle", "acknowledge"):
        assert samples["srp_step_seconds_count", (("step", step),)] >= 1
        assert samples["srp_step_seconds_bucket", (("le", "+Inf"), ("step", step))] >= 1
    assert samples["srp_pages_total", (("tier", "graph"),)] >= 1
    for service in ("PostgreSQL", "Neo4j", "SQS", "Dragonfly"):
        assert samples["srp_calls_total", (("result", "ok"), ("service", service))] >= 1
        assert samples["srp_dependency_up", (("service", service),)] == 1
    assert samples["srp_messages_in_flight", ()] == samples["srp_backlog_messages", ()] == 0
    assert samples["srp_oldest_unfinished_job_seconds", ()] == 0
    assert live == (200, {"live": True, "hanging": []})
    up = {name: {"up": True} for name in ("SQS", "PostgreSQL", "Neo4j")}
    assert ready == (200, {"ready": True, "state": "running", "dependencies": up})


def test_an_outage_is_seen_and_asked_of_nobody(environment: dict[str, str], mended: Stack) -> None:
    with Worker(environment) as worker:
        address = address_of(worker)
        worker.wait_for("Consuming")
        mended.pause("sqs")
        worker.wait_for("SQS is down, receiving is paused")
        status, answer = fetch_json(f"{address}/health/ready")
        assert (status, answer["ready"], answer["state"]) == (503, False, "running")
        assert answer["dependencies"]["SQS"]["up"] is False
        assert answer["dependencies"]["SQS"]["down_since"].endswith("Z")
        assert answer["dependencies"]["PostgreSQL"] == {"up": True}
        assert fetch_json(f"{address}/health/live")[0] == 200, "a restart would mend nothing"
        assert value(address, "srp_dependency_up", service="SQS") == 0
        assert value(address, "srp_receiving_paused") == 1
        mended.resume("sqs")
        wait_until(lambda: fetch_json(f"{address}/health/ready")[0] == 200, "it to be ready again")
        assert worker.stop() == 0


def _up(address: str) -> dict[str, bool]:
    _, answer = fetch_json(f"{address}/health/ready")
    return {name: each["up"] for name, each in answer["dependencies"].items()}


def test_a_worker_that_waits_for_its_tables_lives_and_is_not_ready(
    environment: dict[str, str], bare_postgres_url: str
) -> None:
    with Worker({**environment, "POSTGRES_URL": bare_postgres_url}) as worker:
        address = address_of(worker)
        worker.wait_for("Waiting for PostgreSQL: the tables")
        # The services are looked at side by side; the others answer soon.
        wait_until(lambda: _up(address) == {"SQS": True, "PostgreSQL": False, "Neo4j": True}, "the others to be seen")
        status, answer = fetch_json(f"{address}/health/ready")
        assert (status, answer["state"]) == (503, "starting")
        assert fetch_json(f"{address}/health/live")[0] == 200
        assert worker.stop() == 0


def test_what_is_no_question_is_answered_and_changes_nothing(environment: dict[str, str]) -> None:
    with Worker(environment) as worker:
        address = address_of(worker)
        worker.wait_for("Consuming")
        status, answer = fetch_json(f"{address}/")
        assert (status, answer["paths"]) == (404, ["/metrics", "/health/live", "/health/ready"])
        assert fetch(f"{address}/health/live?verbose=1")[0] == 200
        assert fetch(f"{address}/metrics", "HEAD") == (200, "")
        assert fetch(f"{address}/metrics", "POST")[0] == 501
        port = int(address.rsplit(":", 1)[1])
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        silent[0].sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        silent[1].close()
        assert fetch(f"{address}/health/live")[0] == 200, "a client that says nothing holds nobody up"
        for each in silent:
            each.close()
        assert worker.stop() == 0
        assert "Traceback" not in worker.log()


def test_more_clients_than_it_serves_at_once_are_hung_up_on(environment: dict[str, str]) -> None:
    with Worker(environment) as worker:
        address = address_of(worker)
        port = int(address.rsplit(":", 1)[1])
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
        wait_until(lambda: _answers(address), "its turn")
        for each in silent:
            each.close()
        assert worker.stop() == 0


def test_a_port_that_is_taken_ends_the_start(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with Worker({**environment, "METRICS_PORT": port}) as worker:
            assert worker.process.wait(60) == 2
            assert f"METRICS_PORT: can't listen on port {port} of 127.0.0.1: Address already in use" in worker.log()
            assert "Traceback" not in worker.log()


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("METRICS_PORT", "65536", "METRICS_PORT should be less than or equal to 65535"),
        ("METRICS_PORT", "http", "METRICS_PORT should be a valid integer"),
        ("METRICS_HOST", "nowhere.invalid", "METRICS_PORT: can't listen on port 0 of nowhere.invalid"),
    ],
)
def test_what_makes_no_address_ends_the_start(environment: dict[str, str], name: str, wrong: str, said: str) -> None:
    with Worker({**environment, name: wrong}) as worker:
        assert worker.process.wait(60) == 2
        assert said in worker.log()
        assert "Traceback" not in worker.log()


def test_only_this_machine_may_ask_unless_it_is_said_otherwise(environment: dict[str, str]) -> None:
    with Worker(environment) as worker:
        assert address_of(worker).startswith("http://127.0.0.1:")
    with Worker({**environment, "METRICS_HOST": "0.0.0.0"}) as worker:
        assert address_of(worker).startswith("http://0.0.0.0:")


def test_without_a_port_nothing_listens_and_no_library_for_it_is_loaded(environment: dict[str, str]) -> None:
    code = (
        "import sys, threading\nfrom app import main\n"
        "code = main.main()\n"
        "print('loaded:', sorted(n for n in sys.modules if n.startswith('prometheus_client')))"
    )
    del environment["METRICS_PORT"]
    with Worker(environment, "-c", code) as worker:
        worker.wait_for("Consuming")
        worker.stop()
        assert "loaded: []" in worker.log()
        assert "Serving" not in worker.log()


def test_a_consumer_of_somebody_s_own_messages_is_watched_too(environment: dict[str, str], queues: Queues) -> None:
    only = {k: v for k, v in environment.items() if not k.startswith(("NEO4J", "POSTGRES", "SQS_COMPLETED"))}
    queues.segments.send([Outgoing("hello")])
    with Worker(only, "-c", SUBCLASS) as worker:
        address = address_of(worker)
        wait_until(lambda: value(address, "srp_messages_total", outcome="done") == 1, "the message to be counted")
        assert fetch_json(f"{address}/health/ready")[1]["dependencies"] == {"SQS": {"up": True}}
        assert value(address, "srp_oldest_unfinished_job_seconds") is None, "it has no PostgreSQL to ask"
        assert worker.stop() == 0


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health/live", timeout=10):
            return True
    except OSError:
        return False

"""A trace from the message to the completion, on a real worker; and nothing of it where nobody asks."""

import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from app.sqs.queue import Outgoing, text_attribute
from devstack.families import Family
from tests.support.answers import EXAMPLES, read_example
from tests.support.endstate import is_over, load_job
from tests.support.engine import Engine
from tests.support.services import Queues, receive_all
from tests.support.worker import Worker, wait_until

TRACES = ["4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c"]
STEPS = {"claim", "walk", "settle", "acknowledge"}


def traceparent(trace: str) -> dict[str, Any]:
    return {"traceparent": text_attribute(f"00-{trace}-00f067aa0ba902b7-01")}


def spans_of(worker: Worker) -> list[Mapping[str, Any]]:
    """What the exporter has put on the console."""
    return [json.loads(line) for line in worker.log().splitlines() if line.startswith("{")]


def trace_of(span: Mapping[str, Any]) -> str:
    return str(span["context"]["trace_id"]).removeprefix("0x")


def finish_jobs(environment: dict[str, str], engine: Engine, queues: Queues, messages: list[Outgoing], jobs: set[str]):  # type: ignore[no-untyped-def]
    """Let a traced worker do them; its spans, and the traceparent of each job's completion."""
    queues.segments.send(messages)
    with Worker({**environment, "OTEL_TRACES_EXPORTER": "console", "SQS_BATCHES_IN_HAND": "1"}) as worker:
        wait_until(lambda: all(is_over(engine, job) for job in jobs), "the jobs to end")
        completions = receive_all(queues.completed, len(jobs))
        assert worker.stop() == 0
        spans = spans_of(worker)
    carried: dict[str, str] = {}
    for message in completions:
        attributes: Any = message.get("MessageAttributes", {})
        carried[json.loads(str(message["Body"]))["job_id"]] = attributes.get("traceparent", {}).get("StringValue", "")
    return spans, carried


@pytest.fixture
def family(load_graph: Callable[[Family], None]) -> Family:
    family, _ = read_example(EXAMPLES / "small_family.json")
    load_graph(family)
    return family


def test_a_trace_goes_from_the_message_through_its_batch_to_the_completion(
    environment: dict[str, str], engine: Engine, queues: Queues, family: Family
) -> None:
    job = str(uuid.uuid4())
    bodies = load_job(engine, family, family.manifestations[0], job_id=job)
    messages = [Outgoing(body, attributes=traceparent(TRACES[0])) for body in bodies]
    spans, carried = finish_jobs(environment, engine, queues, messages, {job})
    batches = {span["context"]["span_id"]: span for span in spans if span["name"] == "segments"}
    assert batches
    for batch in batches.values():
        assert trace_of(batch) == TRACES[0]
        assert batch["parent_id"] == "0x00f067aa0ba902b7"
        assert batch["kind"] == "SpanKind.CONSUMER"
        assert batch["attributes"]["srp.job_ids"] == [job]
        assert batch["resource"]["attributes"]["service.name"] == "segment-relationship-processor"
        assert {s["name"] for s in spans if s["parent_id"] == batch["context"]["span_id"]} == STEPS
    assert {trace_of(span) for span in spans} == {TRACES[0]}
    found = [segment for batch in batches.values() for segment in batch["attributes"]["srp.segment_ids"]]
    assert sorted(found) == sorted(json.loads(body)["segment_id"] for body in bodies)
    version, trace, span, flags = carried[job].split("-")
    assert (version, trace, flags) == ("00", TRACES[0], "01")
    assert f"0x{span}" in batches, "the completion continues the batch that completed its job"


def test_a_batch_of_several_traces_is_linked_to_each_and_mixes_none(
    environment: dict[str, str], engine: Engine, queues: Queues, family: Family
) -> None:
    jobs = {str(uuid.uuid4()): trace for trace in TRACES}
    plain, broken = str(uuid.uuid4()), str(uuid.uuid4())
    text = family.manifestations[0]
    messages = [Outgoing(load_job(engine, family, text, job_id=plain, segments=family.job_segments(text)[:1])[0])]
    wrong = load_job(engine, family, text, job_id=broken, segments=family.job_segments(text)[:1])[0]
    messages.append(Outgoing(wrong, attributes={"traceparent": text_attribute("no trace at all")}))
    for job, trace in jobs.items():
        bodies = load_job(engine, family, text, job_id=job, segments=family.job_segments(text)[:1])
        messages += [Outgoing(body, attributes=traceparent(trace)) for body in bodies]
    spans, carried = finish_jobs(environment, engine, queues, messages, {*jobs, plain, broken})
    linked = {
        str(link["context"]["trace_id"]).removeprefix("0x")
        for span in spans
        if span["name"] == "segments"
        for link in span["links"]
    }
    assert linked == set(TRACES)
    assert {job: carried[job].split("-")[1] for job in jobs} == jobs
    assert (carried[plain], carried[broken]) == ("", "")


def test_an_exporter_that_is_not_known_ends_the_start(environment: dict[str, str]) -> None:
    with Worker({**environment, "OTEL_TRACES_EXPORTER": "zipkin"}) as worker:
        assert worker.process.wait(60) == 2
        assert "OTEL_TRACES_EXPORTER must be one of otlp, console or none" in worker.log()


def test_what_is_not_installed_is_named_with_its_cure(environment: dict[str, str]) -> None:
    code = "import sys\nsys.modules['opentelemetry.sdk'] = None\nfrom app.main import main\nsys.exit(main())"
    with Worker({**environment, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, "-c", code) as worker:
        assert worker.process.wait(60) == 2
        assert "pip install -r requirements-otel.txt" in worker.log()
        assert "Traceback" not in worker.log()


def test_a_collector_that_does_not_answer_holds_up_nothing(
    environment: dict[str, str], engine: Engine, queues: Queues, family: Family
) -> None:
    job = str(uuid.uuid4())
    bodies = load_job(engine, family, family.manifestations[0], job_id=job)
    queues.segments.send([Outgoing(body, attributes=traceparent(TRACES[0])) for body in bodies])
    with Worker({**environment, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}) as worker:
        wait_until(lambda: is_over(engine, job), "the job to end")
        assert worker.stop() == 0


def test_nothing_of_it_is_imported_where_nobody_asks(environment: dict[str, str]) -> None:
    # The cache's client looks for the SDK by itself, where it is installed; not for its traces.
    code = """
import sys
from app import main
main.main()
ours = ("opentelemetry.sdk.trace", "opentelemetry.exporter")
print("loaded:", sorted(name for name in sys.modules if name.startswith(ours)))
"""
    with Worker(environment, "-c", code) as worker:
        worker.wait_for("Consuming")
        worker.stop()
        assert "loaded: []" in worker.log()

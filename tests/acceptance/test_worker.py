"""``python -m app.main`` as a process on real services: whole jobs, the wrong things, and how it starts."""

import json
import uuid
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import neo4j
import pytest
from sqlalchemy import text

from app.db.postgres import run
from app.sqs.queue import Outgoing, Queue
from devstack.families import Family
from devstack.stack import Stack
from tests.support.answers import EXAMPLES, example_files, read_example
from tests.support.endstate import answers_of, completions, is_over, job_row, load_job, problems, wrong_answers
from tests.support.engine import Engine
from tests.support.services import Queues, migrate, receive_all
from tests.support.worker import Worker, wait_until

LoadGraph = Callable[[Family], None]


def all_over(engine: Engine, jobs: Iterable[str]) -> bool:
    return all(is_over(engine, job) for job in jobs)


def start_job(engine: Engine, queue: Queue, family: Family, manifestation: str) -> str:
    job = str(uuid.uuid4())
    bodies = load_job(engine, family, manifestation, job_id=job)
    assert queue.send([Outgoing(body) for body in bodies]) == {}
    return job


@pytest.mark.parametrize("cache", ["cached", "no cache", "dead cache"])
def test_every_example_answer_through_the_whole_worker(
    cache: str, environment: dict[str, str], engine: Engine, queues: Queues, load_graph: LoadGraph
) -> None:
    """One worker sees all the families, one after the other, and keeps nothing of one for the next."""
    if cache != "cached":
        environment["DRAGONFLY_URL"] = "redis://127.0.0.1:1/0" if cache == "dead cache" else ""
    expected: dict[str, dict[str, list[dict[str, object]]]] = {}
    with Worker(environment) as worker:
        worker.wait_for("Consuming")
        for path in example_files():
            family, questions = read_example(path)
            load_graph(family)
            texts = sorted({q.manifestation_id for q in questions})
            jobs = {start_job(engine, queues.segments, family, name): answers_of(questions, name) for name in texts}
            wait_until(partial(all_over, engine, jobs), f"the jobs of {path.stem} to end")
            expected |= jobs
        wait_until(lambda: queues.segments.facts().messages == 0, "every message to be deleted")
        assert worker.stop() == 0
    assert problems(engine) == []
    assert {job: wrong for job, answers in expected.items() if (wrong := wrong_answers(engine, job, answers))} == {}
    assert completions(queues.completed) == dict.fromkeys(expected, 1)


def test_two_workers_and_every_message_twice(
    environment: dict[str, str], engine: Engine, queues: Queues, load_graph: LoadGraph
) -> None:
    family = Family.from_graph(
        {
            "manifestations": ["M"],
            "annotations": [{"id": "M.s", "manifestation": "M", "type": "segmentation"}],
            "segments": [{"id": f"s{n}", "annotation": "M.s", "start": n, "end": n + 1} for n in range(500)],
            "aligned_annotations": [],
            "aligned_segments": [],
        }
    )
    load_graph(family)
    job = str(uuid.uuid4())
    bodies = load_job(engine, family, "M", job_id=job)
    queues.segments.send([Outgoing(body) for body in bodies for _ in range(2)])
    with Worker(environment) as one, Worker(environment) as two:
        wait_until(lambda: is_over(engine, job), "the job to end")
        wait_until(lambda: queues.segments.facts().messages == 0, "every message to be deleted")
        assert (one.stop(), two.stop()) == (0, 0)
        processed = [
            line for log in (one.log(), two.log()) for line in log.splitlines() if " - Processing segment " in line
        ]
    assert problems(engine) == []
    assert wrong_answers(engine, job, {f"s{n}": [] for n in range(500)}) == []
    assert job_row(engine, job)["completed_segments"] == 500
    assert len(processed) == 500, "a segment was walked twice"
    assert completions(queues.completed) == {job: 1}


def test_a_changed_alignment_is_seen_by_the_next_job_with_a_warm_cache(
    environment: dict[str, str], engine: Engine, queues: Queues, load_graph: LoadGraph, driver: neo4j.Driver
) -> None:
    family, questions = read_example(EXAMPLES / "small_family.json")
    load_graph(family)
    before = answers_of(questions, "alone")
    assert all(related == [] for related in before.values())
    with Worker(environment) as worker:
        first = start_job(engine, queues.segments, family, "alone")
        wait_until(lambda: is_over(engine, first), "the first job to end")
        _align(driver, "alone", "alone.segmentation", "translation-en", "translation-en.segmentation")
        second = start_job(engine, queues.segments, family, "alone")
        wait_until(lambda: is_over(engine, second), "the second job to end")
        assert worker.stop() == 0
    assert wrong_answers(engine, first, before) == []
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT result_json FROM segment_task WHERE job_id = :job"), {"job": second}
        ).scalars()
        assert all(result[0]["manifestation_id"] == "translation-en" for result in rows)


def _align(driver: neo4j.Driver, left: str, left_segmentation: str, right: str, right_segmentation: str) -> None:
    """Align every segment of one text with every segment of the other."""
    driver.execute_query(
        """
        MATCH (l:Manifestation {id: $left}), (r:Manifestation {id: $right}), (type:AnnotationType {name: 'alignment'})
        CREATE (l)<-[:ANNOTATION_OF]-(a1:Annotation {id: 'new.left'})-[:HAS_TYPE]->(type),
               (r)<-[:ANNOTATION_OF]-(a2:Annotation {id: 'new.right'})-[:HAS_TYPE]->(type),
               (a1)-[:ALIGNED_TO]->(a2)
        CREATE (s1:Segment {id: 'new.1', span_start: 0, span_end: 1000})-[:SEGMENTATION_OF]->(a1),
               (s2:Segment {id: 'new.2', span_start: 0, span_end: 1000})-[:SEGMENTATION_OF]->(a2),
               (s1)-[:ALIGNED_TO]->(s2)
        """,
        left=left,
        right=right,
    )


BAD_BODIES = {
    "not JSON": "hello",
    "another shape": '{"type": "ping"}',
    "a wrong type": json.dumps({"job_id": 7, "manifestation_id": "M", "segment_id": "S", "start": 0, "end": 1}),
    "a reversed span": json.dumps(
        {"job_id": str(uuid.uuid4()), "manifestation_id": "M", "segment_id": "S", "start": 5, "end": 1}
    ),
    "a negative span": json.dumps(
        {"job_id": str(uuid.uuid4()), "manifestation_id": "M", "segment_id": "S", "start": -5, "end": 1}
    ),
    "an empty id": json.dumps(
        {"job_id": str(uuid.uuid4()), "manifestation_id": "M", "segment_id": "", "start": 0, "end": 1}
    ),
    "a 10 kB id": json.dumps(
        {"job_id": str(uuid.uuid4()), "manifestation_id": "M", "segment_id": "x" * 10_000, "start": 0, "end": 1}
    ),
    "a NUL": json.dumps(
        {"job_id": str(uuid.uuid4()), "manifestation_id": "M\x00", "segment_id": "S", "start": 0, "end": 1}
    ),
}


def test_poison_is_dead_lettered_with_its_reason_and_one_log_line(
    environment: dict[str, str], engine: Engine, queues: Queues, load_graph: LoadGraph
) -> None:
    family, questions = read_example(EXAMPLES / "small_family.json")
    load_graph(family)
    job = start_job(engine, queues.segments, family, "root-bo")
    foreign = {"job_id": job, "manifestation_id": "alone", "segment_id": "root-bo.segmentation.0", "start": 0, "end": 1}
    bad = [*BAD_BODIES.values(), json.dumps(foreign)]
    queues.segments.send([Outgoing(body) for body in bad])
    with Worker(environment) as worker:
        wait_until(lambda: queues.dead_letters.facts().messages == len(bad), "every dead letter")
        wait_until(lambda: is_over(engine, job), "the job to end")
        assert worker.stop() == 0
        log = worker.log()
    letters = receive_all(queues.dead_letters, len(bad))
    assert sorted(str(letter["Body"]) for letter in letters) == sorted(bad)
    assert all(letter["MessageAttributes"]["reason"]["StringValue"] for letter in letters)
    assert log.count("is poison") == len(bad)
    assert wrong_answers(engine, job, answers_of(questions, "root-bo")) == []


def test_json_lines_name_worker_job_and_segment(environment: dict[str, str], queues: Queues) -> None:
    body = {"job_id": str(uuid.uuid4()), "segment_id": "S"}
    queues.segments.send([Outgoing(json.dumps(body))])
    with Worker({**environment, "LOG_FORMAT": "json"}) as worker:
        worker.wait_for("is poison")
        assert worker.stop() == 0
        entries = [json.loads(line) for line in worker.log().splitlines()]
    poison = next(entry for entry in entries if "is poison" in entry["event"])
    assert {name: poison[name] for name in body} == body
    assert poison["message_id"]
    assert {entry["worker"] for entry in entries} == {poison["worker"]}


def test_an_unknown_manifestation_fails_its_job_with_a_reason(
    environment: dict[str, str], engine: Engine, queues: Queues, load_graph: LoadGraph
) -> None:
    family, _ = read_example(EXAMPLES / "small_family.json")
    load_graph(family)
    rows = family.job_segments("alone")
    job = str(uuid.uuid4())
    bodies = load_job(engine, family, "no-such-text", job_id=job, segments=rows)
    queues.segments.send([Outgoing(body) for body in bodies])
    with Worker(environment) as worker:
        wait_until(lambda: job_row(engine, job)["status"] == "FAILED", "the job to fail")
        wait_until(lambda: queues.dead_letters.facts().messages == len(rows), "its messages to be dead-lettered")
        assert worker.stop() == 0
        assert "manifestation 'no-such-text' does not exist" in worker.log()
    assert problems(engine) == []
    assert completions(queues.completed) == {}


def test_a_message_that_is_earlier_than_its_row_waits_for_it(
    environment: dict[str, str], engine: Engine, queues: Queues, load_graph: LoadGraph
) -> None:
    family, _ = read_example(EXAMPLES / "small_family.json")
    load_graph(family)
    job = str(uuid.uuid4())
    row = family.job_segments("alone")[0]
    message = {"job_id": job, "manifestation_id": "alone", "segment_id": row.id, "start": row.start, "end": row.end}
    queues.segments.send([Outgoing(json.dumps(message))])
    with Worker(environment) as worker:
        worker.wait_for("has no row yet, back in")
        load_job(engine, family, "alone", job_id=job, segments=[row])
        wait_until(lambda: is_over(engine, job), "the job to end")
        assert worker.stop() == 0
    assert wrong_answers(engine, job, {row.id: []}) == []


def test_without_settings_it_says_what_is_missing(tmp_path: Path) -> None:
    with Worker({"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])}) as worker:
        assert worker.process.wait(60) == 2
        log = worker.log()
    for name in ("NEO4J_URI", "NEO4J_PASSWORD", "POSTGRES_URL", "SQS_QUEUE_URL", "SQS_COMPLETED_QUEUE_URL"):
        assert f"{name} is not set" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("name", ["SQS_QUEUE_URL", "SQS_COMPLETED_QUEUE_URL", "SQS_DEAD_LETTER_QUEUE_URL"])
def test_a_missing_queue_is_exit_code_2(name: str, environment: dict[str, str]) -> None:
    environment[name] += "-missing"
    with Worker(environment) as worker:
        assert worker.process.wait(60) == 2
        assert "does not exist" in worker.log()


def test_a_fifo_input_queue_is_refused(environment: dict[str, str], stack: Stack) -> None:
    environment["SQS_QUEUE_URL"] = stack.make_queue("ordered", fifo=True)
    with Worker(environment) as worker:
        assert worker.process.wait(60) == 2
        assert "FIFO" in worker.log()


def test_missing_tables_are_waited_for_by_name(
    environment: dict[str, str], bare_postgres_url: str, load_graph: LoadGraph
) -> None:
    environment["POSTGRES_URL"] = bare_postgres_url
    with Worker(environment) as worker:
        worker.wait_for("run: alembic upgrade head")
        migrate(bare_postgres_url)
        worker.wait_for("Consuming")
        assert worker.stop() == 0


def test_tables_of_another_version_are_waited_for_by_what_they_lack(
    environment: dict[str, str], engine: Engine, load_graph: LoadGraph
) -> None:
    run(engine, "ALTER TABLE segment_task RENAME COLUMN claim_token TO token")
    with Worker(environment) as worker:
        worker.wait_for("claim_token does not exist")
        assert "run: alembic upgrade head" in worker.log()
        run(engine, "ALTER TABLE segment_task RENAME COLUMN token TO claim_token")
        worker.wait_for("Consuming")
        assert worker.stop() == 0


@pytest.mark.parametrize(
    ("name", "value", "service"),
    [
        ("POSTGRES_URL", "postgresql://me:hunter2@127.0.0.1:1/db", "PostgreSQL"),
        ("NEO4J_URI", "bolt://127.0.0.1:1", "Neo4j"),
        ("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:1", "SQS"),
    ],
)
def test_a_service_that_does_not_answer_at_start_is_waited_for_by_name(
    name: str, value: str, service: str, environment: dict[str, str]
) -> None:
    environment[name] = value
    with Worker(environment) as worker:
        worker.wait_for(f"Waiting for {service}")
        assert "hunter2" not in worker.log()
        assert worker.stop() == 0

"""The benchmark's own contestants on real services: they do the work whose speed is compared."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import neo4j
import pytest
import redis
from sqlalchemy import text

from bench.contestant import Contestant, Environment
from bench.floor import IoFloor
from bench.generate import generate_family
from bench.naive import NaiveGraph, NaiveReference
from bench.reference import reference_walk, walk
from devstack.families import Family, Segment
from devstack.stack import Stack
from tests.support.answers import canonical, example_files, read_example
from tests.support.engine import Engine
from tests.support.services import Queues

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

POLLS = 60
JOB = "550e8400-e29b-41d4-a716-446655440000"


@pytest.fixture
def contestant_environment(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Environment:
    """The test's services, for contestants in this process: boto3 reads its part by itself."""
    for name, value in environment.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    with redis.Redis.from_url(environment["DRAGONFLY_URL"]) as cache:
        cache.flushall()
    return Environment.read(environment)


@pytest.fixture
def sqs(stack: Stack) -> "SQSClient":
    """A client of the stack's SQS, for the test's own side."""
    variables = stack.env()
    return boto3.client(
        "sqs",
        region_name=variables["AWS_REGION"],
        endpoint_url=variables["AWS_ENDPOINT_URL_SQS"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
    )


@pytest.mark.parametrize("path", example_files(), ids=lambda path: path.stem)
def test_a_query_a_step_gives_the_example_answers(
    load_graph: Callable[[Family], None], driver: neo4j.Driver, path: Path
) -> None:
    family, questions = read_example(path)
    load_graph(family)
    with driver.session() as session:
        graph = NaiveGraph(session, None)
        for question in questions:
            related = walk(graph, question.manifestation_id, question.start, question.end)
            assert canonical(related) == canonical(question.related)


def test_a_query_a_step_knows_who_is_unknown_and_who_is_alone(
    load_graph: Callable[[Family], None], driver: neo4j.Driver
) -> None:
    load_graph(Family(("alone",), (), (), (), ()))
    with driver.session() as session:
        graph = NaiveGraph(session, None)
        assert walk(graph, "alone", 0, 10) == []
        with pytest.raises(KeyError):
            walk(graph, "nobody", 0, 10)


def test_the_naive_worker_completes_a_job(
    load_graph: Callable[[Family], None],
    contestant_environment: Environment,
    engine: Engine,
    queues: Queues,
    sqs: "SQSClient",
) -> None:
    family = generate_family(4, 12, 9)
    load_graph(family)
    segments = make_job(engine, sqs, queues, family)
    with NaiveReference(contestant_environment) as naive:
        poll_all(naive, len(segments))
    results = completed_results(engine, len(segments))
    for segment in segments:
        assert results[segment.id] == reference_walk(family, family.manifestations[0], segment.start, segment.end)
    assert_one_completion(sqs, queues, family)


def test_the_floor_completes_a_job_with_the_given_results(
    contestant_environment: Environment, engine: Engine, queues: Queues, sqs: "SQSClient"
) -> None:
    family = generate_family(4, 25, 19)
    segments = make_job(engine, sqs, queues, family)
    given = [[{"manifestation_id": "a", "segments": []}], []]
    with IoFloor(contestant_environment, [json.dumps(result) for result in given]) as floor:
        poll_all(floor, len(segments))
    results = completed_results(engine, len(segments))
    expected = [given[place % 2] for place in range(len(segments))]
    assert sorted(results.values(), key=len) == sorted(expected, key=len)
    assert_one_completion(sqs, queues, family)


def make_job(engine: Engine, sqs: "SQSClient", queues: Queues, family: Family) -> list[Segment]:
    """A job over the family's root as a foreign producer makes it, in tables and queue."""
    root = family.manifestations[0]
    segments = family.job_segments(root)
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO root_job (job_id, manifestation_id, total_segments) VALUES (:job, :root, :total)"),
            {"job": JOB, "root": root, "total": len(segments)},
        )
        connection.execute(
            text("INSERT INTO segment_task (job_id, segment_id) VALUES (:job, :segment)"),
            [{"job": JOB, "segment": segment.id} for segment in segments],
        )
    for segment in segments:
        body = {
            "job_id": JOB,
            "manifestation_id": root,
            "segment_id": segment.id,
            "start": segment.start,
            "end": segment.end,
        }
        sqs.send_message(QueueUrl=queues.segments.url, MessageBody=json.dumps(body))
    return segments


def poll_all(contestant: Contestant, segments: int) -> None:
    """Poll until so many segments are done."""
    done = 0
    for _ in range(POLLS):
        done += contestant.poll()
        if done >= segments:
            return
    raise AssertionError(f"{done} of {segments} segments after {POLLS} polls")


def completed_results(engine: Engine, segments: int) -> dict[str, Any]:
    """Every segment's result, once the job and each of them is COMPLETED and counted."""
    with engine.connect() as connection:
        job = connection.execute(text("SELECT status, completed_segments FROM root_job")).one()
        rows = connection.execute(text("SELECT segment_id, status, result_json FROM segment_task")).all()
    assert tuple(job) == ("COMPLETED", segments)
    assert {row.status for row in rows} == {"COMPLETED"}
    return {row.segment_id: row.result_json for row in rows}


def assert_one_completion(sqs: "SQSClient", queues: Queues, family: Family) -> None:
    """The completion message is in the second queue, and the first is empty."""
    received = sqs.receive_message(QueueUrl=queues.completed.url, MaxNumberOfMessages=10, WaitTimeSeconds=5)
    assert [json.loads(message["Body"]) for message in received["Messages"]] == [
        {"job_id": JOB, "manifestation_id": family.manifestations[0]}
    ]
    attributes = sqs.get_queue_attributes(QueueUrl=queues.segments.url, AttributeNames=["All"])["Attributes"]
    assert attributes["ApproximateNumberOfMessages"] == "0"
    assert attributes["ApproximateNumberOfMessagesNotVisible"] == "0"

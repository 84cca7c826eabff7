"""Hostile messages, hostile cache values, secrets, and the AWS rights, with the real worker on real services."""

import json
import os
import pickle
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import redis
from sqlalchemy import text

from app.config import load_settings
from app.errors import ConfigurationError
from app.pages.format import encode_page
from app.pages.page import Page
from app.sqs.queue import Outgoing, text_attribute
from devstack.families import Family
from devstack.proxy import Proxy, moved
from devstack.stack import Stack
from tests.support.answers import EXAMPLES, read_example
from tests.support.endstate import completions, is_over, load_job, problems, wrong_answers
from tests.support.engine import Engine
from tests.support.services import ROOT, Queues, receive_all
from tests.support.worker import Worker, wait_until

LoadGraph = Callable[[Family], None]

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - [\w.]+ - (DEBUG|INFO|WARNING|ERROR|CRITICAL) - .*")
FORGED = "2025-11-18 10:30:45 - app.tasks - INFO - forged"
TEXT = "root-bo"


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    """A poll that is cut off, by a worker's end or by the network, takes messages along for so long."""
    return environment | {"SQS_VISIBILITY_TIMEOUT_SECONDS": "5"}


def message(job: str, segment: str, manifestation: str = TEXT, start: Any = 0, end: Any = 1, **more: Any) -> str:
    named = {"job_id": job, "manifestation_id": manifestation, "segment_id": segment}
    return json.dumps({**named, "start": start, "end": end, **more})


def right_answers(manifestation: str = TEXT) -> dict[str, list[dict[str, Any]]]:
    _, questions = read_example(EXAMPLES / "small_family.json")
    return {q.segment_id: q.related for q in questions if q.manifestation_id == manifestation}


def small_family(load_graph: LoadGraph) -> Family:
    family, _ = read_example(EXAMPLES / "small_family.json")
    load_graph(family)
    return family


def good_job(engine: Engine, queues: Queues, family: Family) -> str:
    job = str(uuid.uuid4())
    queues.segments.send([Outgoing(body) for body in load_job(engine, family, TEXT, job_id=job)])
    return job


JOB = str(uuid.uuid4())
DEEP = 50_000
HOSTILE = {
    "deep lists": "[" * DEEP + "]" * DEEP,
    "deep objects": '{"job_id":' * DEEP + "1" + "}" * DEEP,
    "a deep value of an unknown field": message(JOB, "s").replace("}", ', "x": ' + "[" * DEEP + "]" * DEEP + "}"),
    "an offset of 10,000 digits": message(JOB, "s").replace('"end": 1', f'"end": {"9" * 10_000}'),
    "an offset beyond any number": message(JOB, "s").replace('"end": 1', '"end": 1e999'),
    "an offset that is no number": message(JOB, "s").replace('"end": 1', '"end": NaN'),
    "control characters outside of strings": message(JOB, "s") + "\t\r\n" + FORGED,
    "an id with a forged line": message("x\n" + FORGED, "s"),
    "an object for an id": message(JOB, "s").replace('"s"', '{"$ne": null}'),
    "half a pair of surrogates": message(JOB, "s").replace('"s"', '"\\ud800"'),
    "a template": "{{7*7}}${jndi:ldap://127.0.0.1:1/x}",
    "markup": "<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><x>&a;</x>",
    "bytes of a pickle": "cos\nsystem\n(S'touch /tmp/owned'\ntR.",
}


def test_hostile_messages_are_dead_lettered_and_forge_nothing(
    environment: dict[str, str], engine: Engine, queues: Queues, load_graph: LoadGraph
) -> None:
    family = small_family(load_graph)
    assert queues.segments.send([Outgoing(body) for body in HOSTILE.values()]) == {}
    job = good_job(engine, queues, family)
    with Worker(environment) as worker:
        wait_until(lambda: queues.dead_letters.facts().messages == len(HOSTILE), "every dead letter")
        wait_until(lambda: is_over(engine, job), "the good job to end")
        assert worker.stop() == 0
        log = worker.log()
    letters = receive_all(queues.dead_letters, len(HOSTILE))
    assert sorted(str(letter["Body"]) for letter in letters) == sorted(HOSTILE.values())
    assert wrong_answers(engine, job, right_answers()) == []
    assert_only_lines(log)
    assert log.count("is poison") == len(HOSTILE)
    assert "forged" not in log
    assert len(log) < 50_000


def assert_only_lines(log: str) -> None:
    """Every line is a log line of ours, and none is the forged one."""
    odd = [line for line in log.splitlines() if not LINE.fullmatch(line)]
    assert odd == []
    assert not [line for line in log.splitlines() if line.startswith(FORGED)]


def test_the_largest_message_that_sqs_takes_ends_among_the_dead_letters(
    environment: dict[str, str], engine: Engine, queues: Queues, load_graph: LoadGraph
) -> None:
    family = small_family(load_graph)
    largest = 1024 * 1024
    while queues.segments.send([Outgoing("x" * largest)]):
        largest -= 256 * 1024
    job = good_job(engine, queues, family)
    with Worker(environment) as worker:
        wait_until(lambda: queues.dead_letters.facts().messages == 1, "the dead letter")
        wait_until(lambda: is_over(engine, job), "the good job to end")
        wait_until(lambda: queues.segments.facts().messages == 0, "the input queue to be empty")
        assert worker.stop() == 0
        assert "xxx" not in worker.log()
    letter = receive_all(queues.dead_letters, 1)[0]
    assert letter["Body"] == "x" * largest


def test_ten_attributes_and_hostile_stamps_do_no_harm(
    environment: dict[str, str], engine: Engine, queues: Queues, load_graph: LoadGraph
) -> None:
    """Good work with all the attributes a message may have, and poison with as many."""
    family = small_family(load_graph)
    stamps = {
        "first_sent_at": text_attribute("9" * 40),
        "copied_at": text_attribute("-1"),
        "reason": text_attribute(FORGED),
    }
    attributes = stamps | {f"a{n}": text_attribute("x" * 100) for n in range(6)}
    attributes["binary"] = {"DataType": "Binary", "BinaryValue": bytes(range(256))}  # type: ignore[dict-item]
    job = str(uuid.uuid4())
    bodies = load_job(engine, family, TEXT, job_id=job)
    poison = [json.dumps({"n": n}) for n in range(3)]
    assert len(attributes) == 10
    assert queues.segments.send([Outgoing(body, attributes=attributes) for body in [*bodies, *poison]]) == {}
    with Worker(environment) as worker:
        wait_until(lambda: queues.dead_letters.facts().messages == len(poison), "the dead letters")
        wait_until(lambda: is_over(engine, job), "the job to end")
        assert worker.stop() == 0
        assert_only_lines(worker.log())
    assert wrong_answers(engine, job, right_answers()) == []
    for letter in receive_all(queues.dead_letters, len(poison)):
        kept: Any = letter["MessageAttributes"]
        assert "job_id" in kept["reason"]["StringValue"]
        assert len(kept) <= 10


INJECTIONS = (
    "'; DROP TABLE segment_task; --",
    "$1::text",
    "%(job_ids)s",
    "%s%n%x",
    "'}) DETACH DELETE m //",
    "s\n" + FORGED,
    "s\r" + FORGED,
    "s\u2028" + FORGED,
    "s\x1b[2K" + FORGED,
    "s\x85" + FORGED,
    "\u202eright to left",
    "../../../etc/passwd",
    "{0.__class__}",
)


def test_ids_that_inject_are_only_ids(
    environment: dict[str, str], engine: Engine, queues: Queues, load_graph: LoadGraph
) -> None:
    """As ids of segments they are worked on like any other, and as ids of texts they do not exist."""
    small_family(load_graph)
    job, start, end = str(uuid.uuid4()), 0, 40
    with engine.connect() as connection:
        connection.execute(
            text("INSERT INTO root_job (job_id, manifestation_id, total_segments) VALUES (:job, :text, :n)"),
            {"job": job, "text": TEXT, "n": len(INJECTIONS)},
        )
        for name in INJECTIONS:
            connection.execute(
                text("INSERT INTO segment_task (job_id, segment_id) VALUES (:job, :name)"), {"job": job, "name": name}
            )
    unknown = dict.fromkeys(INJECTIONS, "")
    for name in INJECTIONS:
        unknown[name] = str(uuid.uuid4())
        with engine.connect() as connection:
            connection.execute(
                text("INSERT INTO root_job (job_id, manifestation_id, total_segments) VALUES (:job, :text, 1)"),
                {"job": unknown[name], "text": name},
            )
            connection.execute(
                text("INSERT INTO segment_task (job_id, segment_id) VALUES (:job, 's')"), {"job": unknown[name]}
            )
    bodies = [message(job, name, start=start, end=end) for name in INJECTIONS]
    bodies += [message(unknown[name], "s", name) for name in INJECTIONS]
    assert queues.segments.send([Outgoing(body) for body in bodies]) == {}
    with Worker(environment) as worker:
        wait_until(lambda: all(is_over(engine, each) for each in [job, *unknown.values()]), "all jobs to end")
        wait_until(lambda: queues.segments.facts().messages == 0, "the input queue to be empty")
        assert worker.stop() == 0
        log = worker.log()
    assert_only_lines(log)
    assert problems(engine) == []
    expected = right_answers()[f"{TEXT}.segmentation.0"]
    assert wrong_answers(engine, job, dict.fromkeys(INJECTIONS, expected)) == []
    with engine.connect() as connection:
        failed = connection.execute(
            text(
                "SELECT manifestation_id, error_message FROM segment_task JOIN root_job USING (job_id)"
                " WHERE segment_task.status = 'FAILED'"
            )
        ).all()
    errors = {row.manifestation_id: row.error_message for row in failed}
    assert errors.keys() == set(INJECTIONS)
    assert all("does not exist" in error for error in errors.values())
    for letter in receive_all(queues.dead_letters, len(INJECTIONS)):
        attributes: Any = letter["MessageAttributes"]
        assert attributes["reason"]["StringValue"].isprintable()


class _Bomb:
    """Unpickled, it leaves a folder behind."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


def test_rubbish_in_the_cache_is_never_executed_and_changes_no_answer(
    environment: dict[str, str],
    engine: Engine,
    queues: Queues,
    load_graph: LoadGraph,
    tmp_path: Path,
) -> None:
    family = small_family(load_graph)
    mark = tmp_path / "executed"
    bomb = _Bomb(mark)
    with redis.Redis.from_url(environment["DRAGONFLY_URL"]) as cache:
        cache.flushall()
        first = good_job(engine, queues, family)
        with Worker(environment) as worker:
            wait_until(lambda: is_over(engine, first), "the first job to end")
            assert worker.stop() == 0
        values: dict[Any, Any] = {key: cache.get(key) or b"" for key in cache.scan_iter()}
        pages = {key: value for key, value in values.items() if value.startswith(b"srpage")}
        assert len(pages) > 1, "the worker has cached its pages"
        # A page in the worker's memory is too old for the next job, so each job asks the cache.
        with Worker(environment) as worker:
            for name, rubbish in rubbish_of(next(iter(pages.values())), bomb).items():
                for key in pages:
                    cache.delete(key)
                    if rubbish is None:
                        cache.rpush(key, "a list")
                    else:
                        cache.set(key, rubbish)
                job = good_job(engine, queues, family)
                wait_until(lambda job=job: is_over(engine, job), f"the job to end: {name}")  # type: ignore[misc]
                assert wrong_answers(engine, job, right_answers()) == [], name
            assert worker.stop() == 0
            log = worker.log()
    assert " - ERROR - " not in log
    assert "The cache holds what is no page of ours" in log
    assert "The cache does not answer" not in log
    assert not mark.exists()


def rubbish_of(page: bytes, bomb: _Bomb) -> dict[str, bytes | None]:
    """Values under the real keys; None stands for a list in place of a string."""
    flipped = bytearray(page)
    flipped[len(page) // 2] ^= 4
    return {
        "nothing": b"",
        "a pickle": pickle.dumps(bomb),
        "a pickle behind our header": page[:23] + pickle.dumps(bomb),
        "code": b"__import__('os').abort()",
        "a page cut short": page[:-1],
        "a page that goes on": page + b"\x00",
        "a page with one bit flipped": bytes(flipped),
        "a page of another version": page[:6] + b"\xff" + page[7:],
        "another text's page": page,
        "a page of the future, forged": encode_page(Page("root-bo", 2**60, exists=True), b"guessed"),
        "deep JSON": b"[" * 1_000_000,
        "ten megabytes": b"\x00" * 10_000_000,
        "a list": None,
    }


SECRETS = {"AWS_SECRET_ACCESS_KEY": "aws-hunter2-secret", "AWS_SESSION_TOKEN": "aws-hunter2-token"}


def passwords(environment: dict[str, str]) -> set[str]:
    found = {environment["NEO4J_PASSWORD"], *SECRETS.values()}
    found |= {urlsplit(environment[name]).password or "" for name in ("POSTGRES_URL", "DRAGONFLY_URL")}
    assert all(found)
    return found


def test_no_secret_is_in_a_log_or_the_process_list_whatever_fails(
    environment: dict[str, str], engine: Engine, queues: Queues, load_graph: LoadGraph
) -> None:
    """At the most talkative level, through the loss of each service in turn."""
    family = small_family(load_graph)
    environment |= SECRETS | {"LOG_LEVEL": "DEBUG", "AWS_ACCESS_KEY_ID": "hunter2-id"}
    proxies: dict[str, Proxy] = {}
    for name in ("POSTGRES_URL", "NEO4J_URI", "DRAGONFLY_URL", "AWS_ENDPOINT_URL_SQS"):
        proxies[name] = Proxy.before(environment[name]).start()
        environment[name] = moved(environment[name], proxies[name].port)
    services = {"POSTGRES_URL": "PostgreSQL", "NEO4J_URI": "Neo4j", "AWS_ENDPOINT_URL_SQS": "SQS"}
    try:
        with Worker(environment) as worker:
            worker.wait_for("Consuming")
            for name, proxy in proxies.items():
                proxy.cut()
                job = good_job(engine, queues, family)
                if name in services:
                    worker.wait_for(f"{services[name]} is down")
                else:
                    wait_until(lambda job=job: is_over(engine, job), "the job to end without a cache")  # type: ignore[misc]
                proxy.heal()
                wait_until(lambda job=job: is_over(engine, job), f"the job to end after {name}")  # type: ignore[misc]
            family_of_processes = [psutil.Process(worker.process.pid)]
            family_of_processes += family_of_processes[0].children(recursive=True)
            commands = [" ".join(process.cmdline()) for process in family_of_processes]
            assert worker.stop() == 0
            log = worker.log()
    finally:
        for proxy in proxies.values():
            proxy.stop()
    for secret in passwords(environment):
        assert secret not in log
        assert not [command for command in commands if secret in command]


@pytest.mark.parametrize("name", ["POSTGRES_URL", "NEO4J_PASSWORD", "DRAGONFLY_URL"])
def test_a_wrong_password_is_told_without_it(name: str, environment: dict[str, str], stack: Stack) -> None:
    right = passwords(environment | SECRETS) - set(SECRETS.values())
    assert len(right) == 1, "the stack has one password"
    environment[name] = environment[name].replace(right.pop(), "hunter2")
    environment["LOG_LEVEL"] = "DEBUG"
    with Worker(environment) as worker:
        if name == "DRAGONFLY_URL":
            worker.wait_for("Consuming")
            assert worker.stop() == 0
        else:
            assert worker.process.wait(60) == 2
            assert {"POSTGRES_URL": "PostgreSQL", "NEO4J_PASSWORD": "Neo4j"}[name] in worker.log()
        assert "hunter2" not in worker.log()


def test_settings_and_their_errors_show_no_secret(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (environment | SECRETS).items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    for secret in passwords(environment | SECRETS):
        assert secret not in repr(settings)
        assert secret not in str(settings)
    for name in ("POSTGRES_URL", "NEO4J_URI", "DRAGONFLY_URL", "SQS_QUEUE_URL"):
        monkeypatch.setenv(name, "nonsense://me:hunter2@[")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert "hunter2" not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r} {caught.value.__context__!r}"


PERMISSIONS = {
    "SendMessageBatch": "SendMessage",
    "DeleteMessageBatch": "DeleteMessage",
    "ChangeMessageVisibilityBatch": "ChangeMessageVisibility",
}
"""https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-api-permissions-reference.html:
the batch calls are allowed by the permission of the single one."""


def documented_rights() -> dict[str, set[str]]:
    """Queue name of the README's policy to the operations that it allows there."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    policy = json.loads(readme.split("### The least AWS rights")[1].split("```json")[1].split("```")[0])
    rights: dict[str, set[str]] = {}
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        resources = statement["Resource"]
        for resource in [resources] if isinstance(resources, str) else resources:
            rights.setdefault(resource.rsplit(":", 1)[-1], set()).update(statement["Action"])
    return rights


def test_every_aws_call_is_in_the_documented_policy_and_nothing_more_is_asked_for(
    environment: dict[str, str],
    engine: Engine,
    make_queues: Callable[..., Queues],
    load_graph: LoadGraph,
    tmp_path: Path,
) -> None:
    """A whole job with its completion, a dead letter, a hidden message, a fresh copy."""
    family = small_family(load_graph)
    queues = make_queues(max_receive_count=2)
    environment |= {
        "SQS_QUEUE_URL": queues.segments.url,
        "SQS_COMPLETED_QUEUE_URL": queues.completed.url,
        "SQS_DEAD_LETTER_QUEUE_URL": queues.dead_letters.url,
    }
    notes = tmp_path / "calls"
    row = family.job_segments("alone")[0]
    early = str(uuid.uuid4())
    queues.segments.send([Outgoing("poison"), Outgoing(message(early, row.id, "alone", row.start, row.end))])
    with Worker(environment, "-m", "tests.support.aws_calls", str(notes)) as worker:
        wait_until(lambda: worker.log().count("has no row yet, back in") == 2, "the message to be hidden, then copied")
        load_job(engine, family, "alone", job_id=early, segments=[row])
        job = good_job(engine, queues, family)
        wait_until(lambda: is_over(engine, job) and is_over(engine, early), "the jobs to end")
        wait_until(lambda: queues.dead_letters.facts().messages == 1, "the dead letter")
        assert worker.stop() == 0
    assert completions(queues.completed) == {job: 1, early: 1}
    names = {
        queues.segments.name: "segments",
        queues.completed.name: "segments-completed",
        queues.dead_letters.name: "segments-dead-letters",
    }
    made: dict[str, set[str]] = {}
    for line in notes.read_text().splitlines():
        service, operation, queue = line.split(" ")
        assert service == "SQS"
        made.setdefault(names[queue], set()).add(f"sqs:{PERMISSIONS.get(operation, operation)}")
    assert made == documented_rights()

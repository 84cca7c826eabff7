"""Each command of the published contract, typed as it stands there."""

import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from app.sqs.queue import Outgoing
from devstack.families import Family
from tests.support.answers import EXAMPLES, read_example
from tests.support.endstate import answers_of, is_over, load_job, wrong_answers
from tests.support.engine import Engine
from tests.support.services import ROOT, Queues, base_environment
from tests.support.worker import Worker, wait_until

BY_HAND = """
from app.config import get
from app.main import SimpleConsumer
SimpleConsumer(queue_url=get("SQS_QUEUE_URL"), region=get("AWS_REGION"), polling_wait_time_ms=50).start()
"""

OF_ONE_S_OWN = """
from app.config import get
from app.main import SimpleConsumer

class Mine(SimpleConsumer):
    def handle_message(self, message):
        print("mine:", message.Body, flush=True)

Mine(queue_url=get("SQS_QUEUE_URL"), region=get("AWS_REGION"), polling_wait_time_ms=50).start()
"""


def python(environment: dict[str, str], code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_get(environment: dict[str, str]) -> None:
    only = {**base_environment(), "SQS_QUEUE_URL": environment["SQS_QUEUE_URL"]}
    done = python(only, "from app.config import get; print(get('SQS_QUEUE_URL'))")
    assert (done.returncode, done.stdout.strip()) == (0, environment["SQS_QUEUE_URL"])


def test_engine(environment: dict[str, str]) -> None:
    only = {**base_environment(), "POSTGRES_URL": environment["POSTGRES_URL"]}
    done = python(only, "from app.db.postgres import engine; engine.connect(); print('ok')")
    assert (done.returncode, done.stdout.strip()) == (0, "ok")


def test_importing_connects_to_nothing_and_needs_nothing() -> None:
    done = python(base_environment(), "import app.main, app.jobs, app.relation, app.db.postgres; print('ok')")
    assert (done.returncode, done.stdout.strip()) == (0, "ok")


def main(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``python -m app.main`` without any setting."""
    return subprocess.run(
        [sys.executable, "-m", "app.main", *arguments],
        cwd=ROOT,
        env=base_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_says_what_it_is_where_its_settings_come_from_and_how_it_ends() -> None:
    done = main("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for part in ("python -m app.main", "env.example", "exit codes", "\n  0 ", "\n  2 ", "\n  3 ", "\n  128 + n "):
        assert part in done.stdout


def test_an_argument_that_it_does_not_know_is_refused() -> None:
    done = main("--once")
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: python -m app.main" in done.stderr
    assert "--once" in done.stderr


INTERRUPTED = """
import runpy, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "psycopg2":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Finder())
runpy.run_module("app.main", run_name="__main__", alter_sys=True)
"""


def test_ctrl_c_during_the_imports_shows_no_traceback() -> None:
    done = python(base_environment(), INTERRUPTED)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_neo4j(environment: dict[str, str]) -> None:
    code = "from app.neo4j_database import Neo4JDatabase; db = Neo4JDatabase(); print('ok')"
    only = {**base_environment(), **{k: v for k, v in environment.items() if k.startswith("NEO4J")}}
    done = python(only, code)
    assert (done.returncode, done.stdout.strip()) == (0, "ok")
    assert python({**only, "NEO4J_URI": "bolt://127.0.0.1:1"}, code).returncode != 0


@pytest.mark.parametrize("code", [BY_HAND, "import runpy; runpy.run_module('app.main', run_name='__main__')"])
def test_a_consumer_built_by_hand_does_the_whole_work(
    code: str, environment: dict[str, str], engine: Engine, queues: Queues, load_graph: Callable[[Family], None]
) -> None:
    family, questions = read_example(EXAMPLES / "small_family.json")
    load_graph(family)
    job = str(uuid.uuid4())
    queues.segments.send([Outgoing(body) for body in load_job(engine, family, "alone", job_id=job)])
    with Worker(environment, "-c", code) as worker:
        wait_until(lambda: is_over(engine, job), "the job to end")
        assert worker.stop() == 0
    assert wrong_answers(engine, job, answers_of(questions, "alone")) == []


def test_a_subclass_needs_only_its_queue(environment: dict[str, str], queues: Queues) -> None:
    only = {k: v for k, v in environment.items() if not k.startswith(("NEO4J", "POSTGRES", "SQS_COMPLETED"))}
    queues.segments.send([Outgoing("hello")])
    with Worker(only, "-c", OF_ONE_S_OWN) as worker:
        worker.wait_for("mine: hello")
        wait_until(lambda: queues.segments.facts().messages == 0, "the message to be deleted")
        assert worker.stop() == 0


def test_the_published_names_are_there() -> None:
    code = """
import inspect
from aws_sqs_consumer import Consumer
from app.main import SimpleConsumer
from app.tasks import TaskService
assert issubclass(SimpleConsumer, Consumer)
assert list(inspect.signature(TaskService.process_segment_task).parameters) == [
    "self", "job_id", "manifestation_id", "segment_id", "start", "end"]
assert callable(TaskService._try_claim_segment_task)
ours = set(inspect.signature(SimpleConsumer.__init__).parameters)
assert set(inspect.signature(Consumer.__init__).parameters) <= ours
print("ok")
"""
    done = python(base_environment(), code)
    assert (done.returncode, done.stdout.strip()) == (0, "ok"), done.stderr


@pytest.mark.parametrize(
    "name",
    [
        "requirements.txt",
        "runtime.txt",
        "env.example",
        "purge_sqs.py",
        "README.md",
        "alembic.ini",
        "app/neo4j_quries.py",
    ],
)
def test_the_published_files_are_there(name: str) -> None:
    assert (Path(ROOT) / name).is_file()


@pytest.mark.parametrize("name", ["SQS_COMPLETED_QUEUE_URL", "SQS_DEAD_LETTER_QUEUE_URL"])
def test_queues_that_are_one_are_refused_at_the_start(name: str, environment: dict[str, str]) -> None:
    with Worker({**environment, name: environment["SQS_QUEUE_URL"]}) as worker:
        assert worker.process.wait(60) == 2
        assert f"SQS_QUEUE_URL and {name} name the same queue" in worker.log()


def test_a_consumer_s_own_queue_is_not_where_its_dead_letters_go(environment: dict[str, str]) -> None:
    code = OF_ONE_S_OWN.replace('get("SQS_QUEUE_URL")', 'get("SQS_DEAD_LETTER_QUEUE_URL")')
    done = python(environment, code)
    assert done.returncode == 1
    assert "SQS_QUEUE_URL and SQS_DEAD_LETTER_QUEUE_URL name the same queue" in done.stderr

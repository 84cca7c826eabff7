"""The local stack on real servers: started, broken in every way that is known, mended, and stopped without a trace.

They live in a folder with a path longer than a Unix socket's, with spaces and letters that are not ASCII, in a stack
of this file's own.
"""

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest
import redis

from devstack import lifecycle, processes, queues
from devstack.errors import DevstackError
from devstack.services import Cache
from devstack.services.base import Say
from devstack.stack import Stack
from devstack.waiting import wait_until

LIGHT = ["postgres", "cache"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout") / ("a long way böd བོད " * 7).strip()
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def ours(checkout: Path) -> Iterator[Stack]:
    """In the locale that a bare machine has, which knows ASCII only."""
    with pytest.MonkeyPatch.context() as bare:
        bare.setenv("LC_ALL", "C")
        stack = Stack("ours", checkout=checkout)
        yield stack
        stack.down()


@pytest.fixture
def light(ours: Stack) -> Stack:
    """The two services that start in no time."""
    for name in LIGHT:
        ours.start(name)
    return ours


def port(stack: Stack, name: str) -> int:
    return stack._service(name).port


def pid(stack: Stack, name: str) -> int:
    main = stack._service(name).main_process()
    assert main is not None
    return main.pid


def query(stack: Stack, statement: str) -> list[tuple[object, ...]]:
    session = psycopg2.connect(stack._postgres().url())
    session.autocommit = True
    try:
        with session.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []
    finally:
        session.close()


def test_up_gives_every_variable_and_down_leaves_no_process(ours: Stack) -> None:
    ours.up()
    env = ours.env()
    assert set(env) == {
        *("NEO4J_URI", "NEO4J_USER", "NEO4J_PASSWORD", "POSTGRES_URL", "DRAGONFLY_URL"),
        *("AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_SQS"),
        *("SQS_QUEUE_URL", "SQS_COMPLETED_QUEUE_URL", "SQS_DEAD_LETTER_QUEUE_URL", "SQS_WAIT_TIME_SECONDS"),
    }
    assert all(row.up and row.pid for row in ours.status())
    before = {row.name: row.pid for row in ours.status()}
    ours.up()
    assert {row.name: row.pid for row in ours.status()} == before

    everything = [each for name in before for each in ours._service(name).all_processes()]
    ours.down()
    assert not any(processes.is_alive(each) for each in everything)
    assert [row.state for row in ours.status()] == ["down"] * 4
    with pytest.raises(DevstackError, match="is not up"):
        ours.env()


@pytest.mark.parametrize("name", LIGHT)
def test_a_killed_service_starts_on_its_port(light: Stack, name: str) -> None:
    kept = port(light, name)
    light.kill(name)
    assert not light.running(name)
    assert not light._service(name).all_processes()
    light.start(name)
    assert light.answers(name)
    assert port(light, name) == kept


def test_postgres_keeps_its_rows_when_killed(light: Stack) -> None:
    query(light, "CREATE TABLE kept AS SELECT 42 AS answer")
    light.kill("postgres")
    light.start("postgres")
    assert query(light, "SELECT answer FROM kept") == [(42,)]
    query(light, "DROP TABLE kept")


def test_postgres_starts_though_only_its_parent_was_killed(light: Stack) -> None:
    sleeper = threading.Thread(target=_ignoring_errors, args=(light, "SELECT pg_sleep(60)"))
    sleeper.start()
    sleeping = "SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'"
    assert wait_until(lambda: len(query(light, sleeping)) == 1, 10)
    os.kill(pid(light, "postgres"), signal.SIGKILL)
    light.start("postgres")
    assert light.answers("postgres")
    sleeper.join(10)


def _ignoring_errors(stack: Stack, statement: str) -> None:
    try:
        query(stack, statement)
    except psycopg2.Error:
        return


def test_postgres_starts_though_its_old_pid_is_somebody_elses(light: Stack) -> None:
    light.kill("postgres")
    pid_file = light.folder / "postgres" / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    with subprocess.Popen(["sleep", "300"]) as stranger:
        pid_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        light.start("postgres")
        light.stop("postgres")
        assert stranger.poll() is None
        stranger.kill()


def test_an_interrupted_initdb_is_made_again(checkout: Path) -> None:
    fresh = Stack("half-made", checkout=checkout)
    (fresh.folder / "postgres" / "data.new" / "base").mkdir(parents=True)
    (fresh.folder / "postgres" / "data").mkdir()
    fresh.folder.joinpath("state.json").write_text(json.dumps({"ports": {}, "password": "secret"}))
    fresh.start("postgres")
    assert query(fresh, "SELECT 1") == [(1,)]
    fresh.down()


def test_a_paused_service_is_shown_and_woken(light: Stack) -> None:
    light.pause("cache")
    assert wait_until(lambda: {row.name: row.state for row in light.status()}["cache"] == "paused", 5)
    assert light.running("cache")
    assert not light.answers("cache")
    light.start("cache")
    assert light.answers("cache")


def test_a_paused_service_can_be_stopped(light: Stack) -> None:
    for name in LIGHT:
        light.pause(name)
        light.stop(name)
        assert not light.running(name)


def test_a_service_whose_port_was_taken_meanwhile_moves(light: Stack) -> None:
    light.stop("cache")
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", port(light, "cache")))
        thief.listen()
        light.start("cache")
        assert port(light, "cache") != thief.getsockname()[1]
        assert light.answers("cache")


def test_two_commands_at_once_start_one_server(light: Stack, checkout: Path) -> None:
    light.stop("cache")
    starters = [threading.Thread(target=Stack("ours", checkout=checkout).start, args=("cache",)) for _ in range(3)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join(60)
    assert light.answers("cache")
    everybody = [each for each in psutil.process_iter() if processes._matches(each, "valkey-server", _marker(light))]
    assert len(everybody) == 1


def _marker(stack: Stack) -> str:
    return stack._service("cache").marker


def test_stacks_of_other_names_and_other_clones_are_left_alone(light: Stack, checkout: Path) -> None:
    others = [Stack("other", checkout=checkout), Stack("ours", checkout=checkout / "another clone")]
    for other in others:
        other.start("cache")
        assert port(other, "cache") != port(light, "cache")
    light.stop("cache")
    for other in others:
        assert other.answers("cache")
        other.down()


def test_another_stacks_server_on_our_port_is_not_taken_for_ours(light: Stack) -> None:
    client = redis.Redis(host="127.0.0.1", port=port(light, "cache"), password="of another stack", socket_timeout=5)
    with pytest.raises(redis.exceptions.AuthenticationError):
        client.ping()
    client.close()


def test_a_service_that_ends_at_once_is_named_with_its_log(ours: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    ours.stop("cache")
    prepare = Cache.prepare

    def break_config(self: Cache, say: Say) -> None:
        prepare(self, say)
        with Path(self.marker).open("a") as config:
            config.write("no-such-setting yes\n")

    monkeypatch.setattr(Cache, "prepare", break_config)
    with pytest.raises(DevstackError, match=r"(?s)Cache .* ended instead of answering.*no-such-setting"):
        ours.start("cache")


def test_a_service_that_hangs_is_named_after_the_limit(ours: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    ours.stop("cache")
    launch = Cache.launch

    def launch_and_pause(self: Cache) -> None:
        launch(self)
        processes.send(self.all_processes(), signal.SIGSTOP)

    monkeypatch.setattr(Cache, "launch", launch_and_pause)
    monkeypatch.setattr(Cache, "start_limit_seconds", 1.0)
    with pytest.raises(DevstackError, match=r"Cache .* does not answer on 127\.0\.0\.1:\d+ after 1 s"):
        ours.start("cache")
    monkeypatch.undo()
    ours.start("cache")
    assert ours.answers("cache")


def test_a_service_found_hanging_is_replaced(light: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = pid(light, "cache")
    light.pause("cache")
    monkeypatch.setattr(Stack, "resume", lambda self, name: None)
    monkeypatch.setattr(lifecycle, "ANSWER_LIMIT_SECONDS", 0.5)
    monkeypatch.setattr(Cache, "start_limit_seconds", 0.5)
    light.start("cache")
    assert light.answers("cache")
    assert pid(light, "cache") != hanging


def test_databases_are_made_and_dropped_at_will(light: Stack) -> None:
    url = light.make_database("made-here")
    assert light.make_database("made-here") == url
    session = psycopg2.connect(url)
    light.drop_database("made-here")
    light.drop_database("made-here")
    with pytest.raises(psycopg2.OperationalError, match="does not exist"):
        psycopg2.connect(url)
    session.close()


def test_queues_are_made_again_when_their_server_was_killed(ours: Stack) -> None:
    ours.start("sqs")
    dead = ours.make_queue("dead")
    made = ours.make_queue("made", dead_letter_queue=dead, max_receive_count=3, visibility_timeout_seconds=7)
    assert ours.make_queue("made", dead_letter_queue=dead, max_receive_count=3, visibility_timeout_seconds=7) == made
    attributes = _attributes(ours, made)
    assert attributes["VisibilityTimeout"] == "7"
    assert json.loads(attributes["RedrivePolicy"])["maxReceiveCount"] == 3
    assert ours.make_queue("ordered", fifo=True).endswith("/ordered.fifo")

    ours.kill("sqs")
    ours.start("sqs")
    urls = queues.client(ours._sqs().url).list_queues()["QueueUrls"]
    assert sorted(url.rsplit("/", 1)[1] for url in urls) == sorted(
        [queues.INPUT, queues.COMPLETED, queues.DEAD_LETTERS]
    )
    assert json.loads(_attributes(ours, f"{ours._sqs().url}/000000000000/segments")["RedrivePolicy"]) == {
        "deadLetterTargetArn": "arn:aws:sqs:us-east-1:000000000000:segments-dead-letters",
        "maxReceiveCount": 10,
    }


def test_durable_queues_keep_messages_receipts_and_counts_when_killed(checkout: Path) -> None:
    stack = Stack("durable", checkout=checkout, durable_queues=True)
    stack.start("sqs")
    queue = stack.make_queue("kept", visibility_timeout_seconds=600)
    client = queues.client(stack._sqs().url)
    for body in ("in flight", "waiting"):
        client.send_message(QueueUrl=queue, MessageBody=body)
    [received] = client.receive_message(QueueUrl=queue)["Messages"]
    stack.kill("sqs")
    stack.start("sqs")
    counts = _attributes(stack, queue)
    assert (counts["ApproximateNumberOfMessages"], counts["ApproximateNumberOfMessagesNotVisible"]) == ("1", "1")
    client.change_message_visibility(QueueUrl=queue, ReceiptHandle=received["ReceiptHandle"], VisibilityTimeout=0)
    again = client.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, AttributeNames=["All"])["Messages"]
    seen = {message["Body"]: message["Attributes"]["ApproximateReceiveCount"] for message in again}
    assert seen[received["Body"]] == "2"
    stack.down()


def _attributes(stack: Stack, queue: str) -> dict[str, str]:
    answer = queues.client(stack._sqs().url).get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])
    return {str(name): value for name, value in answer["Attributes"].items()}

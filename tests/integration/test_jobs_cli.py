"""`python -m app.jobs` as people and scripts use it, on the real services."""

import json
import os
import signal
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime

import pytest

from app.db.jobs import PostgresJobs
from app.db.postgres import run
from app.errors import OutageError
from app.jobs import __main__ as jobs_cli
from app.jobs import repairs
from app.jobs.printing import TIME_FORMAT
from app.jobs.producer import Producer
from app.models import parse_segment_message
from app.sqs.queue import Outgoing
from devstack.families import SMALL_FAMILY_PATH, Family
from tests.support.commands import Command, at_a_terminal, start
from tests.support.engine import Engine
from tests.support.jobs import RESULT, assert_true, claimed, complete, fail, make_job, rows, statuses
from tests.support.services import Queues

TEXT = "root-bo"
FAMILY = Family.from_json(SMALL_FAMILY_PATH)
UNKNOWN = "550e8400-e29b-41d4-a716-446655440000"
CLOSED_PORT = 1


def received(queues: Queues) -> list[str]:
    messages = queues.segments.receive(10, 1, 30)
    queues.segments.delete([message["ReceiptHandle"] for message in messages])
    return sorted(parse_segment_message(message["Body"]).segment_id for message in messages)


def job_segments(text: str = TEXT) -> list[str]:
    return sorted(segment.id for segment in FAMILY.job_segments(text))


@pytest.mark.usefixtures("command")
def test_create_makes_the_job_and_queues_its_messages(
    environment: dict[str, str], engine: Engine, queues: Queues, load_graph: Callable[[Family], None]
) -> None:
    load_graph(FAMILY)
    process = start(environment, "create", TEXT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    job = PostgresJobs(engine).get(out.strip())
    assert job is not None
    assert out == f"{job.job_id}\n"
    assert (job.manifestation_id, job.status, job.total_segments) == (TEXT, "QUEUED", len(job_segments()))
    assert f"{len(job_segments())} messages went to the queue {queues.segments.name}" in err
    spans = [(s.id, s.start, s.end) for s in FAMILY.job_segments(TEXT)]
    assert sorted(rows(engine, "SELECT segment_id, span_start, span_end FROM segment_task")) == sorted(spans)
    assert received(queues) == job_segments()


def test_a_text_without_segmentation_is_cut_by_its_pagination(
    command: Command, engine: Engine, load_graph: Callable[[Family], None]
) -> None:
    load_graph(FAMILY)
    paginated = next(
        text
        for text in FAMILY.manifestations
        if job_segments(text)
        and not any(a.manifestation == text and a.type == "segmentation" for a in FAMILY.annotations)
    )
    assert command("create", paginated).code == 0
    assert sorted(row[0] for row in rows(engine, "SELECT segment_id FROM segment_task")) == job_segments(paginated)


def test_an_unknown_text_makes_no_job(
    command: Command, engine: Engine, queues: Queues, load_graph: Callable[[Family], None]
) -> None:
    load_graph(FAMILY)
    ran = command("create", "no such text")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "The manifestation 'no such text' does not exist in the graph\n"
    assert rows(engine, "SELECT * FROM root_job") == []
    assert queues.segments.facts().messages == 0


def test_the_id_is_told_before_the_messages_are_sent(
    command: Command,
    engine: Engine,
    queues: Queues,
    load_graph: Callable[[Family], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load_graph(FAMILY)

    def lose(*_: object) -> None:
        raise OutageError("SQS", "gone")

    with monkeypatch.context() as broken:
        broken.setattr(Producer, "send_unsent", lose)
        ran = command("create", TEXT)
    job_id = ran.out.strip()
    assert ran.code == 1
    assert f"python -m app.jobs resume {job_id}" in ran.err
    assert "SQS does not answer: gone" in ran.err
    assert queues.segments.facts().messages == 0

    ran = command("resume", job_id)
    assert (ran.code, ran.out) == (0, "")
    assert received(queues) == job_segments()
    assert "no message is waiting" in command("resume", job_id).err
    assert received(queues) == []
    assert_true(engine)


def test_status_shows_the_counts(command: Command, engine: Engine) -> None:
    job_id = make_job(engine, 5, "text\nwith [red]escapes\x1b")
    run(engine, "UPDATE root_job SET completed_segments = 1, failed_segments = 2, status = 'IN_PROGRESS'")
    ran = command("status", job_id)
    assert ran.code == 0
    lines = dict(line.split(maxsplit=1) for line in ran.out.splitlines())
    assert lines["job"] == job_id
    assert lines["manifestation"] == r"text\nwith [red]escapes\x1b"
    assert lines["status"] == "IN_PROGRESS"
    assert lines["segments"] == "5: 1 completed, 2 failed, 2 to do"


def test_list_shows_the_newest_jobs(command: Command, engine: Engine) -> None:
    made = [make_job(engine, 1, f"text {at}\t[b]") for at in range(3)]
    run(engine, f"UPDATE root_job SET status = 'COMPLETED' WHERE job_id = '{made[0]}'")
    lines = command("list", "--limit", "2").out.splitlines()
    assert lines[0].split("\t")[:3] == ["job_id", "manifestation_id", "status"]
    assert [line.split("\t")[0] for line in lines[1:]] == made[:0:-1]
    assert lines[1].split("\t")[1] == r"text 2\t[b]"
    completed = command("list", "--status", "COMPLETED").out.splitlines()[1:]
    assert [line.split("\t")[:3] for line in completed] == [[made[0], r"text 0\t[b]", "COMPLETED"]]


def test_list_is_a_table_at_a_terminal(environment: dict[str, str], engine: Engine) -> None:
    job_id = make_job(engine, 1, "[red]a very long name of a text that does not fit into the column at all")
    out = at_a_terminal(environment, "list")
    assert job_id in out
    assert "[red]a" in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_show_prints_a_json_object_a_segment(command: Command, engine: Engine) -> None:
    job_id = make_job(engine, 3)
    done, broken = claimed(engine, job_id, ["s00000", "s00001"])
    complete(engine, [done])
    fail(engine, [broken])
    ran = command("show", job_id)
    assert [json.loads(line) for line in ran.out.splitlines()] == [
        {
            "segment_id": "s00000",
            "span": {"start": 0, "end": 10},
            "status": "COMPLETED",
            "related": json.loads(RESULT),
        },
        {
            "segment_id": "s00001",
            "span": {"start": 10, "end": 20},
            "status": "FAILED",
            "error": "broken",
            "related": None,
        },
        {"segment_id": "s00002", "span": {"start": 20, "end": 30}, "status": "QUEUED", "related": None},
    ]


def test_show_ends_quietly_when_its_reader_does(environment: dict[str, str], engine: Engine) -> None:
    process = start(environment, "show", make_job(engine, 5_000))
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["segment_id"] == "s00000"
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(30) == 0


def test_watching_without_a_terminal_tells_each_change(environment: dict[str, str], engine: Engine) -> None:
    job_id = make_job(engine, 2)
    process = start(environment, "status", job_id, "--watch")
    assert process.stdout is not None
    assert process.stdout.readline() == "QUEUED 0 completed, 0 failed, 2 to do of 2\n"
    claims = claimed(engine, job_id, ["s00000", "s00001"])
    assert process.stdout.readline() == "IN_PROGRESS 0 completed, 0 failed, 2 to do of 2\n"
    complete(engine, claims[:1])
    assert process.stdout.readline() == "IN_PROGRESS 1 completed, 0 failed, 1 to do of 2\n"
    complete(engine, claims[1:])
    rest, err = process.communicate(timeout=30)
    assert (rest, err, process.returncode) == ("COMPLETED 2 completed, 0 failed, 0 to do of 2\n", "", 0)


def test_watching_a_job_that_fails_ends_with_1(environment: dict[str, str], engine: Engine) -> None:
    job_id = make_job(engine, 1)
    fail(engine, claimed(engine, job_id, ["s00000"]))
    shown = at_a_terminal(environment, "status", job_id, "--watch", expected=1)
    assert "FAILED" in shown
    assert "1 failed" in shown


def test_ctrl_c_ends_watching_without_a_traceback(environment: dict[str, str], engine: Engine) -> None:
    process = start(environment, "status", make_job(engine, 1), "--watch")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "Interrupted\n")


def test_retry_queues_the_failed_segments_and_their_messages(command: Command, engine: Engine, queues: Queues) -> None:
    job_id = make_job(engine, 3)
    PostgresJobs(engine).mark_sent([task.task_id for task in PostgresJobs(engine).list_unsent(job_id, None, 9)])
    fail(engine, claimed(engine, job_id, ["s00001", "s00002"]))
    ran = command("retry", job_id)
    assert ran.code == 0
    assert "2 segments FAILED before, QUEUED again" in ran.out
    assert "2 messages went to the queue" in ran.err
    assert received(queues) == ["s00001", "s00002"]
    assert statuses(engine, job_id) == {"QUEUED": 3}
    ran = command("retry", job_id)
    assert (ran.code, ran.out) == (0, f"Job {job_id} has no FAILED segments: nothing to retry.\n")
    assert received(queues) == []


def test_cancel_ends_the_job_and_refuses_a_completed_one(command: Command, engine: Engine) -> None:
    job_id, finished = make_job(engine, 2), make_job(engine, 1)
    complete(engine, claimed(engine, finished, ["s00000"]))
    ran = command("cancel", job_id)
    assert ran.code == 0
    assert f"Job {job_id} is cancelled: 2 segments" in ran.out
    assert statuses(engine, job_id) == {"FAILED": 2}
    assert "status         FAILED (cancelled)" in command("status", job_id).out
    ran = command("cancel", finished)
    assert (ran.code, ran.out) == (1, "")
    assert f"job {finished} cannot be cancelled".lower() in ran.err.lower()
    ran = command("resume", job_id)
    assert (ran.code, ran.err) == (1, f"Job {job_id} was cancelled; `retry` takes that back\n")


def test_reconcile_repairs_only_what_is_broken(command: Command, engine: Engine, queues: Queues) -> None:
    job_id, other = make_job(engine, 2), make_job(engine, 1)
    complete(engine, claimed(engine, job_id, ["s00000", "s00001"]))
    run(engine, "DELETE FROM completion_outbox")
    before = rows(engine, f"SELECT * FROM root_job WHERE job_id = '{other}'")

    ran = command("reconcile", job_id)

    assert ran.code == 0
    assert ran.out == (
        "1 COMPLETED jobs had no completion message to send: it is made\n"
        "1 completion messages had not been sent: they are\n"
    )
    (message,) = queues.completed.receive(10, 1, 30)
    assert json.loads(message["Body"]) == {"job_id": job_id, "manifestation_id": "m"}
    assert rows(engine, f"SELECT * FROM root_job WHERE job_id = '{other}'") == before
    ran = command("reconcile")
    assert (ran.code, ran.out.splitlines()[:2]) == (0, ["Nothing to repair.", "1 segment was unfinished:"])
    assert received(queues) == []


def test_reconcile_sends_lost_messages_and_mends_counters(command: Command, engine: Engine, queues: Queues) -> None:
    job_id = make_job(engine, 3)
    complete(engine, claimed(engine, job_id, ["s00000"]))
    run(engine, "UPDATE root_job SET completed_segments = 0")
    run(engine, "UPDATE segment_task SET last_sent_at = now() - interval '1 hour' WHERE segment_id = 's00001'")
    ran = command("reconcile")
    assert ran.code == 0
    assert f"job {job_id} (IN_PROGRESS) counted 0 completed and 0 failed of 3, its rows say 1 and 0: mended" in ran.out
    assert "1 unfinished segments were in nobody's hands" in ran.out
    assert received(queues) == ["s00001"]
    assert_true(engine)
    assert command("reconcile", job_id).out.startswith("Nothing to repair.\n2 segments were unfinished:\n  2 were sent")


def test_reconcile_says_what_each_unfinished_segment_waits_for(
    command: Command, engine: Engine, queues: Queues
) -> None:
    job_id, other = make_job(engine, 7), make_job(engine, 2)
    claimed(engine, job_id, ["s00000", "s00001"])
    complete(engine, claimed(engine, job_id, ["s00002"]))
    run(
        engine,
        "UPDATE segment_task SET status = 'RETRYING', retry_at = '2999-01-02 03:04:05Z' WHERE segment_id = 's00003';"
        " UPDATE segment_task SET lease_expires_at = '2999-02-03 04:05:06Z' WHERE segment_id = 's00000';"
        " UPDATE segment_task SET next_send_at = '2999-03-04 05:06:07Z' WHERE segment_id > 's00003';"
        " UPDATE segment_task SET last_sent_at = now() - interval '1 hour' WHERE segment_id = 's00006'",
    )
    ran = command("reconcile", job_id)
    assert ran.code == 0
    assert ran.out == (
        "1 unfinished segments were in nobody's hands: their messages are sent again\n"
        "6 segments were unfinished:\n"
        f"  2 are held by workers, the last until {local('2999-02-03T04:05:06Z')}\n"
        f"  1 wait for their next attempt, the last until {local('2999-01-02T03:04:05Z')}\n"
        "  2 were sent less than 15 minutes ago, twice as long after each repeat, so their messages may still be on"
        f" their way; workers send them again from {local('2999-03-04T05:06:07Z')} on, and this does so now:"
        f" python -m app.jobs reconcile {job_id} --after 0\n"
    )
    assert received(queues) == ["s00006"]
    ran = command("reconcile", job_id, "--after", "0")
    assert received(queues) == ["s00004", "s00005", "s00006"]
    assert "were sent less than" not in ran.out
    assert rows(engine, f"SELECT 1 FROM segment_task WHERE job_id = '{other}' AND send_count > 0") == []


def local(moment: str) -> str:
    """As an operator's clock shows it."""
    return datetime.fromisoformat(moment).astimezone().strftime(TIME_FORMAT)


def test_reconcile_does_not_flood_a_queue_and_says_what_it_left(
    command: Command, engine: Engine, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repairs, "MOST_ON_QUEUE", 130)
    job_id = make_job(engine, 200)
    queues.segments.send([Outgoing("theirs?")] * 20)
    ran = command("reconcile", job_id, "--after", "0")
    assert ran.code == 1
    assert ran.out == (
        "110 unfinished segments were in nobody's hands: their messages are sent again\n"
        "90 more are in nobody's hands: NOT sent. The queue held 20 messages before, and nobody can tell whether theirs"
        f" are among them; once it is emptier: python -m app.jobs reconcile {job_id} --after 0\n"
    )
    assert command("reconcile", job_id, "--after", "0").out.startswith("100 unfinished"), "as many as a worker's sweep"
    assert rows(engine, "SELECT count(*), max(send_count) FROM segment_task WHERE send_count > 0") == [(200, 2)]
    queues.segments.purge()
    ran = command("reconcile", job_id, "--after", "3600")
    assert (ran.code, ran.out.splitlines()[0]) == (0, "Nothing to repair.")


def test_reconcile_after_0_sends_every_unfinished_message_of_more_than_one_sweep(
    command: Command, engine: Engine, queues: Queues
) -> None:
    job_id = make_job(engine, 130)
    ran = command("reconcile", job_id, "--after", "0")
    assert ran.code == 0
    assert rows(engine, "SELECT count(*) FROM segment_task WHERE send_count > 0") == [(130,)]
    assert queues.segments.facts().messages >= 130


@pytest.mark.parametrize("name", ["status", "show", "retry", "cancel", "reconcile", "resume"])
def test_an_unknown_job_is_said_to_be_unknown(command: Command, name: str) -> None:
    ran = command(name, UNKNOWN)
    assert (ran.code, ran.out, ran.err) == (1, "", f"There is no job {UNKNOWN}\n")


@pytest.mark.parametrize("name", ["status", "show", "retry", "cancel", "reconcile", "resume"])
def test_what_is_no_uuid_is_a_usage_error(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        jobs_cli.parse([name, "abc"])
    assert ended.value.code == 2
    assert "JOB must be a UUID such as 550e8400-e29b-41d4-a716-446655440000, not 'abc'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["create"],
        ["create", ""],
        ["create", "x" * 600],
        ["create", "\udcff"],
        ["list", "--status", "DONE"],
        ["list", "--limit", "0"],
        ["list", "--limit", "many"],
        ["reconcile", "--after", "-1"],
        ["reconcile", "--after", "nan"],
    ],
)
def test_a_wrong_command_is_a_usage_error(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        jobs_cli.parse(arguments)
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_looking_needs_the_database_only(
    environment: dict[str, str], engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POSTGRES_URL", environment["POSTGRES_URL"])
    job_id = make_job(engine, 1)
    for arguments in (["status", job_id], ["list"], ["show", job_id], ["cancel", job_id]):
        assert jobs_cli.run(jobs_cli.parse(arguments)) == 0, capsys.readouterr().err


def test_what_is_missing_is_named_at_once(
    tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, missing in (
        (["create", "m"], {"POSTGRES_URL", "SQS_QUEUE_URL", "NEO4J_URI", "NEO4J_PASSWORD"}),
        (["retry", UNKNOWN], {"POSTGRES_URL", "SQS_QUEUE_URL"}),
        (["reconcile"], {"POSTGRES_URL", "SQS_QUEUE_URL", "SQS_COMPLETED_QUEUE_URL"}),
        (["status", UNKNOWN], {"POSTGRES_URL"}),
    ):
        assert jobs_cli.run(jobs_cli.parse(arguments)) == 2
        err = capsys.readouterr().err
        assert {line.split()[1] for line in err.splitlines() if line.startswith("  - ")} == missing


@pytest.mark.parametrize(
    ("variable", "value", "service"),
    [
        ("POSTGRES_URL", f"postgresql://u:hidden@127.0.0.1:{CLOSED_PORT}/d", "PostgreSQL"),
        ("AWS_ENDPOINT_URL_SQS", f"http://127.0.0.1:{CLOSED_PORT}", "SQS"),
        ("NEO4J_URI", f"bolt://127.0.0.1:{CLOSED_PORT}", "Neo4j"),
    ],
)
def test_a_dead_service_is_one_line_and_no_job(
    command: Command,
    engine: Engine,
    load_graph: Callable[[Family], None],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    service: str,
) -> None:
    load_graph(FAMILY)
    monkeypatch.setenv(variable, value)
    ran = command("create", TEXT)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"{service} does not answer")
    assert ran.err.count("\n") == 1
    assert "hidden" not in ran.err
    assert rows(engine, "SELECT * FROM root_job") == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_told_in_one_line(environment: dict[str, str], engine: Engine) -> None:
    job_id = make_job(engine, 1)
    with open("/dev/full", "w") as full, start(environment, "show", job_id, out=full.fileno()) as process:
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said.count("\n")) == (1, 1)
    assert said.startswith("What was asked for could not be written: ")


def test_missing_tables_are_named_with_the_remedy(
    command: Command, bare_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_URL", bare_postgres_url)
    ran = command("list")
    assert ran.code == 1
    assert "alembic upgrade head" in ran.err
    assert "root_job" in ran.err


def test_an_interrupted_create_says_how_to_go_on(
    command: Command, load_graph: Callable[[Family], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_graph(FAMILY)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Producer, "send_unsent", interrupt)
    ran = command("create", TEXT)
    assert ran.code == 130
    assert str(uuid.UUID(ran.out.strip())) in ran.err
    assert "resume" in ran.err

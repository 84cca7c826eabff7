"""Why a job does not get on, as `status` tells it; and how jobs are looked at by programs and by short ids."""

import json
from collections.abc import Callable
from datetime import datetime

import pytest

from app.core.overview import Speed
from app.db.jobs import PostgresJobs
from app.db.postgres import run
from app.db.standing import PostgresStandings
from app.jobs.printing import TIME_FORMAT
from app.sqs.queue import Outgoing
from devstack.families import SMALL_FAMILY_PATH, Family
from tests.support.commands import Command, at_a_terminal
from tests.support.engine import Engine
from tests.support.jobs import RESULT, claimed, complete, fail, make_job
from tests.support.services import Queues

CLOSED_PORT = 1
IDS = ("abcd1234-0000-4000-8000-000000000001", "abcd1234-0000-4000-8000-000000000002")


@pytest.fixture
def stuck(engine: Engine) -> str:
    """A job with a segment in every state: s00000 COMPLETED, 1 FAILED, 2 held, 3 retrying, 4 abandoned, 5 sent."""
    job_id = make_job(engine, 7)
    claims = claimed(engine, job_id, [f"s{at:05}" for at in range(5)])
    complete(engine, claims[:1])
    fail(engine, claims[1:2])
    run(
        engine,
        "UPDATE segment_task SET lease_expires_at = '2999-01-01Z' WHERE segment_id = 's00002';"
        " UPDATE segment_task SET status = 'RETRYING', retry_at = '2999-02-01Z', lease_expires_at = NULL,"
        "   error_message = 'not yet', updated_at = '2001-01-01Z' WHERE segment_id = 's00003';"
        " UPDATE segment_task SET lease_expires_at = '2001-01-01Z' WHERE segment_id = 's00004';"
        " UPDATE segment_task SET last_sent_at = now() WHERE segment_id = 's00005';"
        " UPDATE segment_task SET next_send_at = '2999-03-01Z' WHERE segment_id > 's00003'",
    )
    return job_id


def local(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone().strftime(TIME_FORMAT)


def test_status_says_what_each_segment_waits_for(command: Command, queues: Queues, stuck: str) -> None:
    queues.segments.send([Outgoing("x")] * 3)
    lines = {line[:14].strip() or line: line[15:] for line in command("status", stuck).out.splitlines()}
    assert lines["rows"] == "2 QUEUED, 2 IN_PROGRESS, 1 COMPLETED, 1 RETRYING, 1 FAILED"
    assert lines["held"] == "1 segment in work"
    assert any(line.strip() == f"1 by test, leased until {local('2999-01-01T00:00Z')}" for line in lines)
    assert lines["retrying"] == f"1 segment, the first at {local('2999-02-01T00:00Z')}"
    assert lines["unsent"].endswith(f"python -m app.jobs resume {stuck}")
    assert lines["abandoned"].startswith("1 segment, whose worker let the lease run out")
    assert lines["sent"].startswith("1 segment, ")
    assert lines["sent again"].startswith(f"by a worker from {local('2999-03-01T00:00Z')} on; ")
    assert lines["last error"] == "broken (segment s00001, FAILED)"
    assert "segments a second, about" in lines["rate"]
    assert lines["queue"] == f"{queues.segments.name}: about 3 messages of all jobs wait, 0 are hidden"


def test_status_json_holds_the_same(command: Command, queues: Queues, stuck: str) -> None:
    ran = command("status", stuck, "--json")
    (line,) = ran.out.splitlines()
    shown = json.loads(line)
    assert shown["rows"] == {"QUEUED": 2, "IN_PROGRESS": 2, "COMPLETED": 1, "RETRYING": 1, "FAILED": 1}
    assert [shown[name] for name in ("held", "retrying", "unsent", "abandoned", "sent")] == [1, 1, 1, 1, 1]
    assert shown["held_by"] == [{"worker": "test", "segments": 1, "until": shown["held_by"][0]["until"]}]
    assert datetime.fromisoformat(shown["held_by"][0]["until"]) == datetime.fromisoformat("2999-01-01T00:00Z")
    assert (shown["last_error"]["segment_id"], shown["last_error"]["error"]) == ("s00001", "broken")
    assert shown["segments_per_second"] > 0
    assert shown["queue"] == {"name": queues.segments.name, "waiting": 0, "messages": 0, "error": None}
    assert not shown["is_miscounted"]


def test_a_job_that_has_ended_waits_for_nothing(command: Command, engine: Engine) -> None:
    job_id = make_job(engine, 1)
    complete(engine, claimed(engine, job_id, ["s00000"]))
    out = command("status", job_id).out
    assert [line.split()[0] for line in out.splitlines()] == [
        *("job", "manifestation", "status", "segments", "created", "updated", "rows")
    ]
    shown = json.loads(command("status", job_id, "--json").out)
    assert (shown["status"], shown["queue"], shown["seconds_left"]) == ("COMPLETED", None, None)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("AWS_ENDPOINT_URL_SQS", f"http://127.0.0.1:{CLOSED_PORT}", "SQS does not answer"),
        ("SQS_QUEUE_URL", "", "SQS_QUEUE_URL, or how to reach it, is not set rightly"),
        ("SQS_QUEUE_URL", "http://127.0.0.1:1/000000000000/no-such-queue", "the queue 'no-such-queue' does not exist"),
    ],
)
def test_a_queue_that_cannot_be_asked_keeps_nothing_back(
    command: Command, stuck: str, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    ran = command("status", stuck)
    assert ran.code == 0
    assert ran.out.splitlines()[-1].startswith(f"queue          its depth can't be told: {said}")
    shown = json.loads(command("status", stuck, "--json").out)["queue"]
    assert said in shown["error"]
    assert shown["waiting"] is None


def test_the_rate_is_that_of_the_last_minute(engine: Engine) -> None:
    job_id = make_job(engine, 130)
    complete(engine, claimed(engine, job_id, [f"s{at:05}" for at in range(70)]))
    run(
        engine,
        "UPDATE segment_task SET updated_at = now() - interval '1 hour' WHERE segment_id < 's00010';"
        " UPDATE segment_task SET updated_at = now() - interval '30 seconds'"
        " WHERE segment_id BETWEEN 's00010' AND 's00069'",
    )
    job = PostgresJobs(engine).get(job_id)
    standing = PostgresStandings(engine).look_at(job_id)
    assert job is not None
    assert (standing.lately, standing.lately.per_second) == (Speed(60, 60), 1)
    assert standing.lately.seconds_left(job) == 60


def test_watching_in_json_is_an_object_a_change(command: Command, engine: Engine) -> None:
    job_id = make_job(engine, 1)
    complete(engine, claimed(engine, job_id, ["s00000"]))
    (line,) = command("status", job_id, "--watch", "--json").out.splitlines()
    assert json.loads(line)["status"] == "COMPLETED"


def test_list_json_is_an_object_a_job(command: Command, engine: Engine) -> None:
    made = [make_job(engine, at, f"text {at}\n") for at in (1, 2)]
    shown = [json.loads(line) for line in command("list", "--json").out.splitlines()]
    assert [(job["job_id"], job["manifestation_id"], job["open_segments"]) for job in shown] == [
        (made[1], "text 2\n", 2),
        (made[0], "text 1\n", 1),
    ]


def test_show_of_one_status(command: Command, stuck: str) -> None:
    shown = [json.loads(line) for line in command("show", stuck, "--status", "FAILED").out.splitlines()]
    assert [(row["segment_id"], row["error"]) for row in shown] == [("s00001", "broken")]
    assert command("show", stuck, "--json").out.count("\n") == 7


def test_show_is_a_table_at_a_terminal(environment: dict[str, str], engine: Engine) -> None:
    job_id = make_job(engine, 3)
    done, broken = claimed(engine, job_id, ["s00000", "s00001"])
    complete(engine, [done])
    fail(engine, [broken])
    lines = at_a_terminal(environment, "show", job_id).splitlines()
    assert lines[0].split() == ["SEGMENT,", "SPAN", "RELATED", "TEXT", "ITS", "SEGMENTS"]
    assert any(line.split() == ["s00000", "other", "o1", "[0,", "9)"] for line in lines)
    assert any(line.split() == ["s00001", "(FAILED)", "broken"] for line in lines)
    assert any(line.split() == ["s00002", "(QUEUED)"] for line in lines)
    (line,) = at_a_terminal(environment, "show", job_id, "--status", "COMPLETED", "--json").splitlines()
    assert json.loads(line)["related"] == json.loads(RESULT)


def test_a_long_id_is_shown_whole_in_the_table(environment: dict[str, str], engine: Engine) -> None:
    job_id = make_job(engine, 1)
    run(engine, "UPDATE segment_task SET segment_id = %(name)s", {"name": "[red]" + "x" * 200})
    assert at_a_terminal(environment, "show", job_id).count("x") == 200


def test_a_span_that_does_not_fit_beside_its_id_stands_below_it(environment: dict[str, str], engine: Engine) -> None:
    job_id = make_job(engine, 1)
    complete(engine, claimed(engine, job_id, ["s00000"]))
    run(engine, "UPDATE segment_task SET segment_id = %(name)s", {"name": "x" * 66})
    lines = [line.rstrip() for line in at_a_terminal(environment, "show", job_id).splitlines()]
    assert any(line.endswith(" o1") for line in lines)
    assert any(line.endswith("   [0, 9)") for line in lines)


def test_jobs_are_found_by_the_beginning_of_their_id(command: Command, engine: Engine) -> None:
    for job_id in IDS:
        PostgresJobs(engine).create(job_id, "m", [("s", 0, 1)])
    other = make_job(engine, 1)
    for typed in (other[:13], other.upper(), other.replace("-", "")[:20].upper()):
        assert f"job            {other}" in command("status", typed).out
    ran = command("status", "ABCD")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == f"The ids of 2 jobs begin with abcd, type more of one: {IDS[0]}, {IDS[1]}\n"
    assert command("cancel", IDS[1][:-1] + "2").code == 0
    ran = command("show", "abcd1234-ffff")
    assert (ran.code, ran.out, ran.err) == (1, "", "There is no job whose id begins with abcd1234ffff\n")


@pytest.mark.parametrize(
    "typed", ["abc", "abcdx", "abcd1-234", "abcd1234-ab-cdef", "-abcd", "abcd1234-0000-4000-8000-0000000000000"]
)
def test_what_begins_no_id_is_a_usage_error(command: Command, typed: str) -> None:
    with pytest.raises(SystemExit) as ended:
        command("status", "--", typed)
    assert ended.value.code == 2


def test_a_job_of_many_segments_is_counted(command: Command, load_graph: Callable[[Family], None]) -> None:
    """Right after `create`: all sent, none in work."""
    family = Family.from_json(SMALL_FAMILY_PATH)
    load_graph(family)
    job_id = command("create", "root-bo").out.strip()
    shown = json.loads(command("status", job_id[:8], "--json").out)
    assert (shown["sent"], shown["unsent"], shown["queue"]["messages"]) == (4, 0, 4)
    assert "no segment has ended in the last" in command("status", job_id).out

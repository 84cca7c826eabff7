"""The relay and the sweep on real services: nothing forgotten, nothing flooded."""

import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence

import pytest

from app.core.endings import Announcement, Completed
from app.core.segments import Claimed, SegmentRequest
from app.db.claims import PostgresClaims
from app.db.outbox import PostgresOutbox
from app.db.postgres import run
from app.db.results import PostgresResults
from app.errors import OutageError
from app.outbox.relay import Relay
from app.outbox.sweep import Sweep, SweepReport
from app.sqs.queue import Outgoing, Queue, QueueFacts
from app.threads.gate import Gate
from app.threads.stopping import Stop
from app.worker.housekeeper import Housekeeper
from tests.support.asking import ask
from tests.support.engine import Engine
from tests.support.services import Queues, receive_all
from tests.support.worker import wait_until


class Graph:
    """Knows the spans of these segments only."""

    def __init__(self, **spans: tuple[int, int]) -> None:
        self._spans = spans

    def find_spans(self, segment_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        return {name: self._spans[name] for name in segment_ids if name in self._spans}


@pytest.fixture
def outbox(engine: Engine) -> PostgresOutbox:
    return PostgresOutbox(engine)


@pytest.fixture
def relay(outbox: PostgresOutbox, queues: Queues) -> Relay:
    return Relay(outbox, queues.completed)


@pytest.fixture
def sweep(outbox: PostgresOutbox, relay: Relay, queues: Queues) -> Sweep:
    return Sweep(outbox, relay, queues.segments, Graph(bare=(3, 9)))


def make_job(engine: Engine, *segments: str, with_spans: bool = True) -> str:
    job = str(uuid.uuid4())
    run(
        engine,
        """INSERT INTO root_job (job_id, manifestation_id, total_segments) VALUES (%(job)s, 'M', %(total)s);
        INSERT INTO segment_task (job_id, segment_id, span_start, span_end)
        SELECT %(job)s, name, CASE WHEN %(spans)s THEN 1 END, CASE WHEN %(spans)s THEN 5 END
        FROM unnest(%(segments)s::text[]) AS n (name)""",
        {"job": job, "total": len(segments), "segments": list(segments), "spans": with_spans},
    )
    return job


def complete(engine: Engine, job: str, *segments: str) -> tuple[Announcement, ...]:
    requests = [SegmentRequest(job, "M", segment, 1, 5, int(time.time() * 1000)) for segment in segments]
    claims = ask(PostgresClaims(engine, "w", 5), requests, 60)
    endings = [Completed(claim, "[]") for claim in claims if isinstance(claim, Claimed)]
    return PostgresResults(engine).settle(endings).announcements


def age(engine: Engine, job: str, minutes: float) -> None:
    run(
        engine,
        "UPDATE segment_task SET created_at = created_at - %(m)s * interval '1 minute',"
        " last_sent_at = last_sent_at - %(m)s * interval '1 minute',"
        " next_send_at = next_send_at - %(m)s * interval '1 minute' WHERE job_id = %(job)s",
        {"m": minutes, "job": job},
    )


def bodies(queue: Queue, count: int) -> list[dict[str, object]]:
    return [json.loads(str(message["Body"])) for message in receive_all(queue, count)]


def test_the_completion_message_has_the_published_shape(engine: Engine, relay: Relay, queues: Queues) -> None:
    job = make_job(engine, "a")
    assert relay.send(complete(engine, job, "a")) == 1
    assert bodies(queues.completed, 1) == [{"job_id": job, "manifestation_id": "M"}]
    assert run(engine, "SELECT sent_at IS NOT NULL, send_count FROM completion_outbox") == [(True, 1)]


def test_a_sweep_finds_nothing_where_nothing_is_broken(engine: Engine, sweep: Sweep) -> None:
    make_job(engine, "a")
    assert sweep.run() == SweepReport()
    assert sweep.run().found_nothing


def test_a_forgotten_completion_is_relayed_once_its_lease_has_run_out(
    engine: Engine, sweep: Sweep, queues: Queues
) -> None:
    job = make_job(engine, "a")
    complete(engine, job, "a")
    assert sweep.run().completions_sent == 0
    run(engine, "UPDATE completion_outbox SET leased_until = clock_timestamp() - interval '1 second'")
    assert sweep.run().completions_sent == 1
    assert bodies(queues.completed, 1)[0]["job_id"] == job
    assert sweep.run().found_nothing


def test_a_completed_job_without_outbox_row_gets_one(engine: Engine, sweep: Sweep, queues: Queues) -> None:
    complete(engine, make_job(engine, "a"), "a")
    run(engine, "DELETE FROM completion_outbox")
    report = sweep.run()
    assert (report.outbox_rows_added, report.completions_sent) == (1, 1)
    assert len(bodies(queues.completed, 1)) == 1


def test_a_job_whose_counters_say_that_it_has_ended_gets_its_status(engine: Engine, sweep: Sweep) -> None:
    job = make_job(engine, "a")
    complete(engine, job, "a")
    run(engine, "UPDATE root_job SET status = 'IN_PROGRESS'; DELETE FROM completion_outbox")
    report = sweep.run()
    assert (report.jobs_ended, report.completions_sent) == (1, 1)
    assert run(engine, "SELECT status FROM root_job") == [("COMPLETED",)]


def test_a_job_that_an_operator_has_locked_is_left_to_the_next_sweep(
    engine: Engine, sweep: Sweep, queues: Queues
) -> None:
    locked, free = (make_job(engine, "a") for _ in range(2))
    for job in (locked, free):
        complete(engine, job, "a")
    run(engine, "UPDATE root_job SET status = 'IN_PROGRESS'; DELETE FROM completion_outbox")
    with engine.connect() as operator:
        operator.exec_driver_sql("BEGIN")
        operator.exec_driver_sql(f"SELECT FROM root_job WHERE job_id = '{locked}' FOR UPDATE")
        assert sweep.run().jobs_ended == 1
        operator.exec_driver_sql("COMMIT")
    assert [body["job_id"] for body in bodies(queues.completed, 1)] == [free]
    assert sweep.run().jobs_ended == 1


def test_every_job_of_a_day_is_looked_at_only_now_and_then(engine: Engine, sweep: Sweep) -> None:
    assert sweep.run().found_nothing
    job = make_job(engine, "a")
    complete(engine, job, "a")
    run(engine, "DELETE FROM completion_outbox")
    assert sweep.run().found_nothing
    assert sweep.run(job_id=job).outbox_rows_added == 1


def test_a_segment_that_nobody_works_on_is_sent_again_with_doubling_waits(
    engine: Engine, sweep: Sweep, queues: Queues
) -> None:
    job = make_job(engine, "a", "b")
    complete(engine, job, "b")
    age(engine, job, 16)
    assert sweep.run().segments_resent == 1
    expected = {"job_id": job, "manifestation_id": "M", "segment_id": "a", "start": 1, "end": 5}
    assert bodies(queues.segments, 1) == [expected]
    age(engine, job, 16)
    assert sweep.run().segments_resent == 0
    age(engine, job, 16)
    assert sweep.run().segments_resent == 1


def test_leased_waiting_and_cancelled_segments_are_left_alone(engine: Engine, sweep: Sweep) -> None:
    leased, waiting, cancelled = make_job(engine, "a"), make_job(engine, "b"), make_job(engine, "c")
    later = "clock_timestamp() + interval '1 minute'"
    run(engine, f"UPDATE segment_task SET status = 'IN_PROGRESS', lease_expires_at = {later} WHERE segment_id = 'a'")
    run(engine, f"UPDATE segment_task SET status = 'RETRYING', retry_at = {later} WHERE segment_id = 'b'")
    run(engine, "UPDATE root_job SET cancelled_at = now() WHERE job_id = %(job)s", {"job": cancelled})
    for job in (leased, waiting, cancelled):
        age(engine, job, 60)
    assert sweep.run().found_nothing


def test_a_dead_lease_is_no_lease(engine: Engine, sweep: Sweep) -> None:
    job = make_job(engine, "a")
    past = "clock_timestamp() - interval '1 minute'"
    run(engine, f"UPDATE segment_task SET status = 'IN_PROGRESS', lease_expires_at = {past}")
    age(engine, job, 16)
    assert sweep.run().segments_resent == 1


def test_a_long_backlog_is_not_flooded(engine: Engine, sweep: Sweep) -> None:
    job = make_job(engine, *[f"s{n}" for n in range(150)])
    age(engine, job, 16)
    assert [sweep.run().segments_resent for _ in range(3)] == [100, 50, 0]


def test_a_missing_span_is_read_from_the_graph(
    engine: Engine, sweep: Sweep, queues: Queues, caplog: pytest.LogCaptureFixture
) -> None:
    job = make_job(engine, "bare", "nowhere", with_spans=False)
    age(engine, job, 16)
    report = sweep.run()
    assert (report.segments_resent, report.segments_without_span) == (1, 1)
    message = bodies(queues.segments, 1)[0]
    assert (message["segment_id"], message["start"], message["end"]) == ("bare", 3, 9)
    assert f"Segment nowhere of job {job} is unfinished" in caplog.text
    assert sweep.run().found_nothing, "what is unknown is asked for again after its wait only"
    age(engine, job, 31)
    assert sweep.run() == SweepReport(segments_resent=1, segments_without_span=1)


def test_what_the_graph_does_not_answer_for_stays_due(
    engine: Engine, outbox: PostgresOutbox, relay: Relay, queues: Queues
) -> None:
    class Silent(Graph):
        def find_spans(self, segment_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
            raise OutageError("Neo4j", "gone")

    bare, known = make_job(engine, "bare", with_spans=False), make_job(engine, "known")
    for job in (bare, known):
        age(engine, job, 16)
    with pytest.raises(OutageError):
        Sweep(outbox, relay, queues.segments, Silent()).run()
    assert [body["segment_id"] for body in bodies(queues.segments, 1)] == ["known"]
    assert run(engine, "SELECT last_sent_at, send_count FROM segment_task WHERE segment_id = 'bare'") == [(None, 0)]
    assert Sweep(outbox, relay, queues.segments, Graph(bare=(3, 9))).run().segments_resent == 1
    assert [body["segment_id"] for body in bodies(queues.segments, 1)] == ["bare"]


def test_no_message_goes_out_without_a_span(engine: Engine, sweep: Sweep, queues: Queues) -> None:
    """`other` comes before `bare` once its neighbour is marked, and nobody has asked the graph for its span yet."""
    mixed, bare = make_job(engine, "known", "other", with_spans=False), make_job(engine, "bare", with_spans=False)
    run(
        engine,
        "UPDATE segment_task SET span_start = 1, span_end = 5, next_send_at = next_send_at - interval '1 minute'"
        " WHERE segment_id = 'known'",
    )
    age(engine, mixed, 30)
    age(engine, bare, 16)
    assert sweep.run(limit=2).segments_resent == 1
    assert [(body["segment_id"], body["start"]) for body in bodies(queues.segments, 1)] == [("known", 1)]


def test_a_job_that_lacks_one_message_gets_it_in_the_first_sweep(engine: Engine, sweep: Sweep, queues: Queues) -> None:
    purged, short = make_job(engine, *[f"s{n}" for n in range(1_000)]), make_job(engine, "the one")
    age(engine, purged, 99)
    age(engine, short, 16)
    assert sweep.run().segments_resent == 100
    assert short in {body["job_id"] for body in bodies(queues.segments, 100)}


@pytest.fixture
def keep(relay: Relay, sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Starts a housekeeper that sweeps at its start, and then not for a quarter of an hour unless there is reason."""
    monkeypatch.setattr(random, "random", lambda: 0.0)
    stop = Stop()
    keeper = Housekeeper(relay, sweep, Gate(), every_seconds=1_200)
    thread = threading.Thread(target=keeper.run, args=(stop,))
    yield thread.start
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def test_lost_messages_come_back_as_fast_as_they_are_worked_off(
    engine: Engine, keep: Callable[[], None], queues: Queues
) -> None:
    """A purge has taken 700 messages: one sweep a quarter of an hour would bring back 100."""
    age(engine, make_job(engine, *[f"s{n}" for n in range(700)]), 16)
    keep()
    assert len({body["segment_id"] for body in bodies(queues.segments, 700)}) == 700


def test_a_backlog_that_stands_gets_no_more_than_one_sweep_s(
    engine: Engine, keep: Callable[[], None], queues: Queues, caplog: pytest.LogCaptureFixture
) -> None:
    queues.segments.send([Outgoing("old")] * 60)
    age(engine, make_job(engine, *[f"s{n}" for n in range(300)]), 16)
    asked: list[int] = []
    facts = queues.segments.facts

    def noted() -> QueueFacts:
        asked.append(1)
        return facts()

    vars(queues.segments).update(facts=noted)
    keep()
    wait_until(lambda: len(asked) >= 3, "the queue to be asked three times")
    assert run(engine, "SELECT count(*) FROM segment_task WHERE send_count > 0") == [(100,)]


def test_one_job_can_be_swept_alone(engine: Engine, sweep: Sweep) -> None:
    mine, other = make_job(engine, "a"), make_job(engine, "a")
    for job in (mine, other):
        age(engine, job, 16)
    assert sweep.run(job_id=mine).segments_resent == 1
    assert sweep.run(job_id=other).segments_resent == 1


def test_a_completion_that_was_not_sent_is_not_marked(engine: Engine, outbox: PostgresOutbox, queues: Queues) -> None:
    complete(engine, make_job(engine, "a"), "a")
    missing = Queue(queues.completed._client, queues.completed.url + "-missing")
    stop = Stop()
    relay = Relay(outbox, missing)
    keeper = Housekeeper(relay, Sweep(outbox, relay, queues.segments, Graph()), Gate(), every_seconds=1_000)
    keeper.submit(outbox.lease_unsent(0) or [Announcement(str(uuid.uuid4()), "M", str(uuid.uuid4()))])
    assert not keeper.is_idle
    stop.set()
    keeper.run(stop)
    wait_until(lambda: keeper.is_idle, "the keeper to have tried")
    assert run(engine, "SELECT sent_at IS NULL, send_count FROM completion_outbox") == [(True, 0)]

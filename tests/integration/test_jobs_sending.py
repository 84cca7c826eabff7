"""The producer on real PostgreSQL and SQS: what is committed when, and what a crash or a refusal leaves behind."""

import json
import uuid
from collections import Counter
from collections.abc import Collection, Sequence

import pytest

from app.core.jobs import ConflictError, NotFoundError
from app.db.jobs import PostgresJobs
from app.db.postgres import run
from app.errors import ConfigurationError, OutageError, PermanentError, TransientError
from app.jobs.producer import PAGE_SEGMENTS, PAUSES_SECONDS, Producer
from app.jobs.sending import PAGES_AT_ONCE
from app.models import parse_segment_message
from app.sqs.queue import Outgoing, Queue
from devstack.stack import Stack
from tests.support.engine import Engine
from tests.support.jobs import claimed, make_job, rows, segments
from tests.support.producer import Pauses, Texts, TroubledQueue, lose, refuse, refuse_all, work
from tests.support.services import Queues


def producer(
    engine: Engine, queue: Queue | TroubledQueue, graph: Texts | None = None, pauses: Pauses | None = None
) -> Producer:
    return Producer(
        PostgresJobs(engine), queue, graph or Texts({"m": segments(12)}), sleep=Pauses() if pauses is None else pauses
    )


def drain(queue: Queue) -> list[str]:
    """The bodies of all messages that are on the queue now."""
    bodies: list[str] = []
    while queue.facts().messages:
        received = queue.receive(10, 1, 30)
        bodies += [message["Body"] for message in received]
        queue.delete([message["ReceiptHandle"] for message in received])
    return bodies


def drained_ids(queue: Queue) -> Counter[str]:
    return Counter(parse_segment_message(body).segment_id for body in drain(queue))


def unsent(engine: Engine) -> list[str]:
    return [row[0] for row in rows(engine, "SELECT segment_id FROM segment_task WHERE last_sent_at IS NULL ORDER BY 1")]


def test_every_segment_has_its_message_and_its_bookmark(engine: Engine, queues: Queues) -> None:
    graph = Texts({"m": [("ཀ་\x01", 0, 5), ("b", 5, 5)]})
    service = producer(engine, queues.segments, graph)
    job = service.create("m")
    assert queues.segments.facts().messages == 0
    assert len(unsent(engine)) == 2
    run(engine, "UPDATE segment_task SET next_send_at = '2000-01-01'")
    told: list[int] = []

    sending = service.send_unsent(job.job_id, told.append)

    assert (sending.sent, sending.is_complete, told) == (2, True, [2])
    assert sorted(map(json.loads, drain(queues.segments)), key=lambda body: body["start"]) == [
        {"job_id": job.job_id, "manifestation_id": "m", "segment_id": "ཀ་\x01", "start": 0, "end": 5},
        {"job_id": job.job_id, "manifestation_id": "m", "segment_id": "b", "start": 5, "end": 5},
    ]
    assert unsent(engine) == []
    assert rows(engine, "SELECT DISTINCT send_count, status FROM segment_task") == [(0, "QUEUED")]
    waits = "next_send_at - last_sent_at BETWEEN interval '899 s' AND interval '901 s'"
    assert rows(engine, f"SELECT DISTINCT {waits} FROM segment_task") == [(True,)]


def test_several_pages_are_sent_each_message_once(engine: Engine, queues: Queues) -> None:
    count = 2 * PAGE_SEGMENTS + 3
    service = producer(engine, queues.segments, Texts({"m": segments(count)}))
    told: list[int] = []
    sending = service.send_unsent(service.create("m").job_id, told.append)
    assert (sending.sent, told) == (count, [PAGE_SEGMENTS, PAGE_SEGMENTS, 3])
    assert drained_ids(queues.segments) == Counter(segment[0] for segment in segments(count))
    assert service.send_unsent(rows(engine, "SELECT job_id::text FROM root_job")[0][0]).sent == 0


def test_the_job_is_committed_before_its_first_message(engine: Engine, queues: Queues) -> None:
    seen: list[tuple[int, ...]] = []

    def look(_messages: Sequence[Outgoing]) -> None:
        seen.extend(rows(engine, "SELECT (SELECT count(*) FROM root_job), (SELECT count(*) FROM segment_task)"))

    service = producer(engine, TroubledQueue(queues.segments, look))
    service.send_unsent(service.create("m").job_id)
    assert seen == [(1, 12)]


def test_refused_entries_are_tried_again_after_pauses(engine: Engine, queues: Queues) -> None:
    pauses = Pauses()
    queue = TroubledQueue(queues.segments, refuse(0, 7), refuse(1))
    service = producer(engine, queue, pauses=pauses)
    sending = service.send_unsent(service.create("m").job_id)
    assert (sending.sent, sending.is_complete) == (12, True)
    assert drained_ids(queues.segments) == Counter(segment[0] for segment in segments(12))
    assert pauses == list(PAUSES_SECONDS[:2])


def test_what_stays_refused_is_named_and_left_for_a_resume(engine: Engine, queues: Queues) -> None:
    tries = len(PAUSES_SECONDS) + 1
    queue = TroubledQueue(queues.segments, refuse(3, 5), *[refuse(0, 1)] * (tries - 1))
    service = producer(engine, queue)
    job = service.create("m")
    sending = service.send_unsent(job.job_id)
    assert sending.refused == {"s00003": "InternalError", "s00005": "InternalError"}
    assert (sending.sent, sending.is_complete, queue.calls) == (10, False, tries)
    assert unsent(engine) == ["s00003", "s00005"]
    drain(queues.segments)

    assert service.send_unsent(job.job_id).sent == 2

    assert drained_ids(queues.segments) == Counter(["s00003", "s00005"])
    assert unsent(engine) == []


def test_a_queue_that_takes_nothing_is_not_asked_for_ever(engine: Engine, queues: Queues) -> None:
    count = 5 * PAGE_SEGMENTS
    queue = TroubledQueue(queues.segments, *[refuse_all] * 1000)
    service = producer(engine, queue, Texts({"m": segments(count)}))
    sending = service.send_unsent(service.create("m").job_id)
    assert (sending.sent, len(sending.refused), queue.calls) == (0, PAGE_SEGMENTS, len(PAUSES_SECONDS) + 1)


def test_an_outage_among_pages_sent_together_keeps_and_tells_what_went_out(engine: Engine, queues: Queues) -> None:
    count = 20 * PAGE_SEGMENTS
    queue = TroubledQueue(queues.segments, *[work] * 5, lose(OutageError("SQS", "gone")))
    service = producer(engine, queue, Texts({"m": segments(count)}))
    job = service.create("m")
    told: list[int] = []
    with pytest.raises(OutageError):
        service.send_unsent(job.job_id, told.append)
    left = len(unsent(engine))
    assert count - left == sum(told)
    assert left >= 20 * PAGE_SEGMENTS - (6 + 2 * PAGES_AT_ONCE) * PAGE_SEGMENTS, "the others are not begun"
    service.send_unsent(job.job_id)
    assert drained_ids(queues.segments) == Counter(segment[0] for segment in segments(count))


def test_who_sends_can_be_told_to_stop(engine: Engine, queues: Queues) -> None:
    service = producer(engine, queues.segments, Texts({"m": segments(4 * PAGE_SEGMENTS)}))
    job = service.create("m")
    told: list[int] = []
    sending = service.send_unsent(job.job_id, told.append, keep_going=lambda: not told)
    assert (sending.sent, len(unsent(engine))) == (PAGE_SEGMENTS, 3 * PAGE_SEGMENTS)


def test_throttling_is_tried_again(engine: Engine, queues: Queues) -> None:
    queue = TroubledQueue(queues.segments, lose(TransientError("throttled")))
    service = producer(engine, queue)
    assert service.send_unsent(service.create("m").job_id).sent == 12


@pytest.mark.parametrize("error", [OutageError("SQS", "gone"), ConfigurationError("the queue does not exist")])
def test_an_outage_midway_keeps_what_went_out(engine: Engine, queues: Queues, error: Exception) -> None:
    count = 2 * PAGE_SEGMENTS
    pauses = Pauses()
    queue = TroubledQueue(queues.segments, work, refuse(*range(10, PAGE_SEGMENTS)), lose(error))
    service = producer(engine, queue, Texts({"m": segments(count)}), pauses)
    job = service.create("m")
    with pytest.raises(type(error)):
        service.send_unsent(job.job_id)
    assert len(unsent(engine)) == PAGE_SEGMENTS - 10
    assert len(pauses) == 1, "an outage is not waited out"
    service.send_unsent(job.job_id)
    assert drained_ids(queues.segments) == Counter(segment[0] for segment in segments(count))


def test_a_crash_between_sending_and_marking_loses_nothing(engine: Engine, queues: Queues) -> None:
    class Crashing(PostgresJobs):
        def mark_sent(self, task_ids: Collection[str]) -> None:
            raise KeyboardInterrupt

    graph = Texts({"m": segments(12)})
    service = Producer(Crashing(engine), queues.segments, graph)
    job = service.create("m")
    with pytest.raises(KeyboardInterrupt):
        service.send_unsent(job.job_id)
    claimed(engine, job.job_id, ["s00000"])

    assert producer(engine, queues.segments).send_unsent(job.job_id).sent == 11

    twice = Counter(segment[0] for segment in [*segments(12), *segments(12)[1:]])
    assert drained_ids(queues.segments) == twice


@pytest.mark.parametrize(
    ("graph", "error", "words"),
    [
        (Texts({}), NotFoundError, "'m' does not exist"),
        (Texts({"m": []}), NotFoundError, "'m' has no segments"),
        (Texts({"m": [("s1", 0, 5), ("s2", 9, 5)]}), PermanentError, "'s2' .* start must not be greater than end"),
        (Texts({"m": [("s1", 0, 5), ("s1", 0, 6)]}), PermanentError, "'s1' .* two different spans"),
        (Texts({"m": [("s" * 600, 0, 5)]}), PermanentError, "must have 1 to 512 bytes"),
        (Texts({"m": [("s1", 0, 2**63)]}), PermanentError, "'s1' .* less than or equal"),
    ],
)
def test_a_text_without_usable_segments_makes_no_job(
    engine: Engine, queues: Queues, graph: Texts, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        producer(engine, queues.segments, graph).create("m")
    assert rows(engine, "SELECT * FROM root_job") == []


@pytest.mark.parametrize("manifestation_id", ["", "a\x00b", "x" * 513, "\ud800"])
def test_an_id_that_no_message_can_carry_makes_no_job(engine: Engine, queues: Queues, manifestation_id: str) -> None:
    graph = Texts({manifestation_id: segments(1)})
    with pytest.raises(PermanentError, match="the manifestation's id must"):
        producer(engine, queues.segments, graph).create(manifestation_id)
    assert rows(engine, "SELECT * FROM root_job") == []


def test_a_segment_that_comes_twice_is_one(engine: Engine, queues: Queues) -> None:
    graph = Texts({"m": [("s1", 0, 5), ("s1", 0, 5)]})
    assert producer(engine, queues.segments, graph).create("m").total_segments == 1


def test_a_queue_that_cannot_serve_makes_no_job(engine: Engine, queues: Queues, stack: Stack) -> None:
    client = queues.segments._client
    missing = Queue(client, f"{queues.segments.url}-missing")
    with pytest.raises(ConfigurationError, match="does not exist"):
        producer(engine, missing).create("m")
    fifo = Queue(client, stack.make_queue(f"{queues.segments.name}-fifo", fifo=True))
    with pytest.raises(ConfigurationError, match="FIFO"):
        producer(engine, fifo).create("m")
    assert rows(engine, "SELECT * FROM root_job") == []


def test_spans_that_another_producer_did_not_give_are_read_from_the_graph(engine: Engine, queues: Queues) -> None:
    job_id = make_job(engine, 3)
    run(engine, "UPDATE segment_task SET span_start = NULL, span_end = NULL WHERE segment_id <> 's00000'")
    graph = Texts(spans={"s00001": (70, 80)})

    sending = producer(engine, queues.segments, graph).send_unsent(job_id)

    assert (sending.sent, sending.without_span, sending.is_complete) == (2, ["s00002"], False)
    sent = [json.loads(body) for body in drain(queues.segments)]
    assert sorted((body["segment_id"], body["start"], body["end"]) for body in sent) == [
        ("s00000", 0, 10),
        ("s00001", 70, 80),
    ]
    assert unsent(engine) == ["s00002"]
    assert rows(engine, "SELECT span_start FROM segment_task WHERE segment_id = 's00001'") == [(70,)]


def test_nothing_is_sent_for_a_cancelled_or_an_unknown_job(engine: Engine, queues: Queues) -> None:
    job_id = make_job(engine, 1)
    run(engine, "UPDATE root_job SET cancelled_at = now()")
    with pytest.raises(ConflictError, match="was cancelled"):
        producer(engine, queues.segments).send_unsent(job_id)
    with pytest.raises(NotFoundError):
        producer(engine, queues.segments).send_unsent(str(uuid.uuid4()))
    assert drain(queues.segments) == []

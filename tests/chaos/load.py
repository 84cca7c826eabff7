"""The work: jobs of several kinds of producer at random moments, messages twice, late and out of order, and poison.

Invariant: what is asked for is planned from the seed before the run begins; a service that is down delays an event,
and never makes it skip a step that a real producer would have finished.
"""

import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from sqlalchemy.exc import SQLAlchemyError

from app.db.jobs import PostgresJobs
from app.errors import ProcessorError
from app.jobs.producer import Producer
from app.neo4j_database import Neo4JDatabase
from app.sqs.queue import Outgoing
from tests.chaos.surroundings import Library, Surroundings
from tests.support.answers import Question
from tests.support.killer import PREFIX

type Style = Literal["foreign", "early", "producer", "forgotten", "unknown text", "killer"]
"""foreign: rows without spans, then messages. early: messages first. producer: `app.jobs`. forgotten: a producer that
died before its messages went out, or half-way. unknown text: its manifestation is not in the graph. killer: as foreign,
with one segment more, which ends every process that walks it."""

STYLES: Final[dict[Style, int]] = {"foreign": 50, "early": 6, "producer": 30, "forgotten": 6, "unknown text": 2}
"""Killers are planned apart: each costs `MAX_ATTEMPTS` workers, and as many visibilities."""
SECONDS_A_KILLER: Final = 60.0
LAST_KILLER: Final = 0.75
"""Of the run's time, so that the last one is not all that the finishing waits for."""
POISONS: Final = ("not JSON", "another shape", "reversed", "foreign text", "huge", "no such job")
UNKNOWN_LIMIT_SECONDS: Final = 200.0
"""A message without a row is dead-lettered two to three minutes after it was sent."""
RETRY_SECONDS: Final = 0.5

INSERT: Final = """
INSERT INTO root_job (job_id, manifestation_id, total_segments, completed_segments, status)
VALUES (%(job)s, %(manifestation)s, %(total)s, 0, 'QUEUED') ON CONFLICT DO NOTHING;
INSERT INTO segment_task (task_id, job_id, segment_id, status, span_start, span_end)
SELECT gen_random_uuid(), %(job)s, name, 'QUEUED', span_start, span_end
FROM unnest(%(names)s::text[], %(starts)s::bigint[], %(ends)s::bigint[]) AS n (name, span_start, span_end)
ON CONFLICT DO NOTHING
"""
"""One string, so one transaction. Only a killer has its span here: the graph does not know it, should a sweep ask."""


@dataclass(frozen=True, slots=True)
class JobEvent:
    """A job to make, `at` seconds after the start; one in so many of its messages is sent twice or delayed."""

    at: float
    style: Style
    manifestation: str
    job_id: str
    seed: int


@dataclass(frozen=True, slots=True)
class PoisonEvent:
    """A message that must end among the dead letters."""

    at: float
    kind: str
    mark: str


type Event = JobEvent | PoisonEvent


@dataclass(slots=True)
class Asked:
    """What was asked for, written before the first step of it was made."""

    jobs: dict[str, str] = field(default_factory=dict)
    """Job to manifestation."""
    poison: dict[str, str] = field(default_factory=dict)
    """Body to kind."""
    messages: int = 0
    duplicates: int = 0
    delayed: int = 0


def plan(library: Library, seed: int, seconds: float, rate: float) -> list[Event]:
    """The events of a run in order; about `rate` segments a second are asked for, in waves."""
    rng = random.Random(f"load {seed}")
    events: list[Event] = []
    texts = sorted(library.answers)
    at = 0.0
    while at < seconds:
        style: Style = rng.choices(list(STYLES), list(STYLES.values()))[0]
        known = rng.choice(texts)
        manifestation = f"no-such-text-{rng.randrange(1000)}" if style == "unknown text" else known
        events.append(JobEvent(at, style, manifestation, _uuid(rng), rng.randrange(1 << 30)))
        wave = rng.choice((0.0, 0.5, 1.0, 2.5))
        at += wave * len(library.segments[known]) / rate
    for _ in range(max(1, int(seconds / SECONDS_A_KILLER))):
        moment = rng.uniform(0, seconds * LAST_KILLER)
        events.append(JobEvent(moment, "killer", rng.choice(texts), _uuid(rng), rng.randrange(1 << 30)))
    kinds = POISONS if seconds >= UNKNOWN_LIMIT_SECONDS else POISONS[:-1]
    for number in range(max(len(kinds), int(seconds / 6))):
        kind = kinds[number % len(kinds)]
        latest = max(0.0, seconds - UNKNOWN_LIMIT_SECONDS) if kind == "no such job" else seconds * 0.95
        events.append(PoisonEvent(rng.uniform(0, latest), kind, _uuid(rng)))
    return sorted(events, key=lambda event: event.at)


class Load:
    """Makes the planned events happen, in a thread of its own."""

    def __init__(self, around: Surroundings, events: Sequence[Event]) -> None:
        self.asked = Asked()
        self._around = around
        self._events = events
        self._stop = threading.Event()
        self._began = 0.0
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._error: BaseException | None = None
        graph = Neo4JDatabase(around.neo4j_uri, *around.neo4j_auth)
        self._producer = Producer(PostgresJobs(around.admin), around.segments, graph)

    def start(self) -> None:
        """Begin; the plan's time runs from now."""
        self._began = time.monotonic()
        self._thread.start()

    def finish(self) -> None:
        """Leave out what is not begun yet, and finish what is; all services are up again. Raises what went wrong."""
        self._stop.set()
        self._thread.join(120)
        if self._error is not None:
            raise self._error
        assert not self._thread.is_alive(), "the load hangs"

    def _run(self) -> None:
        try:
            for event in self._events:
                if self._stop.wait(max(0.0, self._began + event.at - time.monotonic())):
                    return
                if isinstance(event, PoisonEvent):
                    self._poison(event)
                else:
                    self._make(event)
        except BaseException as error:
            self._error = error

    def _make(self, event: JobEvent) -> None:
        self.asked.jobs[event.job_id] = event.manifestation
        match event.style:
            case "producer":
                self._produce(event, random.Random(event.seed), whole=True)
            case "forgotten":
                self._produce(event, random.Random(event.seed), whole=False)
            case _:
                self._insert_and_send(event, random.Random(event.seed))

    def _produce(self, event: JobEvent, rng: random.Random, *, whole: bool) -> None:
        """By `app.jobs`: it chooses the job's id, and a repeat after a failure may leave another job behind."""
        job = self._patiently(lambda: self._producer.create(event.manifestation))
        del self.asked.jobs[event.job_id]
        self.asked.jobs[job.job_id] = event.manifestation
        if whole:
            sending = self._patiently(lambda: self._producer.send_unsent(job.job_id))
            self.asked.messages += sending.sent
        elif rng.random() < 0.5:
            bodies = self._bodies(replace(event, job_id=job.job_id))
            self._send([Outgoing(body) for body in bodies[: len(bodies) // 2]])

    def _insert_and_send(self, event: JobEvent, rng: random.Random) -> None:
        bodies = self._bodies(event)
        messages = self._worsened(bodies, rng)
        if event.style == "early":
            self._send(messages)
            time.sleep(rng.uniform(0.0, 1.0))
            self._insert(event)
        else:
            self._insert(event)
            self._send(messages)

    def _bodies(self, event: JobEvent) -> list[str]:
        """The job's messages."""
        return [
            _body(event.job_id, event.manifestation, row.segment_id, row.start, row.end) for row in self._rows(event)
        ]

    def _rows(self, event: JobEvent) -> list[Question]:
        """The job's segments; an unknown text is given those of a known one."""
        library = self._around.library
        rows = library.segments.get(event.manifestation) or library.segments["alone"]
        if event.style != "killer":
            return rows
        return [*rows, rows[0]._replace(segment_id=f"{PREFIX}{event.seed}")]

    def _worsened(self, bodies: Sequence[str], rng: random.Random) -> list[Outgoing]:
        """Out of order, some twice, some late."""
        messages = [Outgoing(body) for body in bodies]
        again = [Outgoing(body) for body in bodies if rng.random() < 0.15]
        messages += again
        late = [rng.random() < 0.1 for _ in messages]
        messages = [
            Outgoing(message.body, rng.randrange(1, 15)) if is_late else message
            for message, is_late in zip(messages, late, strict=True)
        ]
        rng.shuffle(messages)
        self.asked.duplicates += len(again)
        self.asked.delayed += sum(late)
        return messages

    def _insert(self, event: JobEvent) -> None:
        rows = self._rows(event)
        values = {
            "job": event.job_id,
            "manifestation": event.manifestation,
            "total": len(rows),
            "names": [row.segment_id for row in rows],
            "starts": [row.start if row.segment_id.startswith(PREFIX) else None for row in rows],
            "ends": [row.end if row.segment_id.startswith(PREFIX) else None for row in rows],
        }

        def insert() -> None:
            with self._around.admin.connect() as connection:
                connection.exec_driver_sql(INSERT, values)

        self._patiently(insert)

    def _poison(self, event: PoisonEvent) -> None:
        body = _poison_body(event, self._around.library, list(self.asked.jobs.items()))
        self.asked.poison[body] = event.kind
        self._send([Outgoing(body)])

    def _send(self, messages: Sequence[Outgoing]) -> None:
        """Until SQS has taken every one."""
        left = list(messages)

        def send() -> None:
            refused = self._around.segments.send(left)
            left[:] = [left[at] for at in refused]

        while left:
            self._patiently(send)
        self.asked.messages += len(messages)

    def _patiently[T](self, step: Callable[[], T]) -> T:
        """Again until it works: the services come back, at the latest when the run is over."""
        deadline = time.monotonic() + 300
        while True:
            try:
                return step()
            except (ProcessorError, SQLAlchemyError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_SECONDS)


def _body(job_id: str, manifestation: str, segment_id: str, start: int, end: int, **more: Any) -> str:
    message = {"job_id": job_id, "manifestation_id": manifestation, "segment_id": segment_id, "start": start}
    return json.dumps({**message, "end": end, **more})


def _poison_body(event: PoisonEvent, library: Library, jobs: Sequence[tuple[str, str]]) -> str:
    """Each is marked, so that no two are equal."""
    known = [each for each in jobs if each[1] in library.segments and each[1] != "alone"]
    job, text = known[0] if known else (event.mark, "root-bo")
    row = library.segments[text][0]
    match event.kind:
        case "not JSON":
            return f"{{{event.mark}"
        case "another shape":
            return json.dumps({"event": "ping", "mark": event.mark})
        case "reversed":
            return _body(job, text, row.segment_id, row.end + 1, row.start, mark=event.mark)
        case "foreign text":
            return _body(job, "alone", row.segment_id, row.start, row.end, mark=event.mark)
        case "huge":
            return _body(job, text, event.mark * 20, row.start, row.end)
        case _:
            return _body(event.mark, text, row.segment_id, row.start, row.end)


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))

"""A job of any size with segments in it that kill whoever walks them, and what must have become of it.

Invariant: the judgement reads the tables by statements of its own and trusts no code of `app`.
"""

import re
import uuid
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import text

from app.sqs.queue import Outgoing, Queue
from devstack.families import Family
from tests.support.answers import EXAMPLES, canonical, read_example
from tests.support.endstate import load_job, problems
from tests.support.engine import Engine
from tests.support.killer import PREFIX

EXAMPLE: Final = EXAMPLES / "random_family_103.json"
MANIFESTATION: Final = "r103-0"
"""Its segments are asked for again and again, each time under another id."""


class Asked(NamedTuple):
    """A segment of the job; a message needs no more."""

    id: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class KillerJob:
    """As it was made. `answers`: segment id to the right result, of the good ones."""

    job_id: str
    killers: frozenset[str]
    answers: dict[str, list[dict[str, Any]]]
    bodies: tuple[str, ...]
    """Its messages."""


@dataclass(frozen=True, slots=True)
class Found:
    """What stands in the tables; `attempts` of the good segments, number to how many have it."""

    statuses: Counter[str]
    attempts: Counter[int]
    problems: tuple[str, ...]


def example() -> Family:
    """The family that the graph must hold."""
    return read_example(EXAMPLE)[0]


def make(engine: Engine, queue: Queue, good: int, killers_at: Collection[int] = ()) -> KillerJob:
    """`good` segments, and a killer before each of those that stand at `killers_at`; the messages are sent."""
    job = insert(engine, good, killers_at)
    send(queue, job)
    return job


def insert(engine: Engine, good: int, killers_at: Collection[int] = ()) -> KillerJob:
    """The rows of such a job alone."""
    questions = [each for each in read_example(EXAMPLE)[1] if each.manifestation_id == MANIFESTATION]
    asked, answers = [], {}
    for number in range(good):
        question = questions[number % len(questions)]
        if number in killers_at:
            asked.append(Asked(f"{PREFIX}{number}", question.start, question.end))
        asked.append(Asked(f"good-{number}", question.start, question.end))
        answers[f"good-{number}"] = question.related
    job_id = str(uuid.uuid4())
    bodies = load_job(engine, example(), MANIFESTATION, job_id=job_id, segments=asked)
    return KillerJob(job_id, frozenset(f"{PREFIX}{number}" for number in killers_at), answers, tuple(bodies))


def send(queue: Queue, job: KillerJob) -> None:
    """All of its messages."""
    refused = queue.send([Outgoing(body) for body in job.bodies])
    assert not refused, "SQS takes every message"


def judge(engine: Engine, job: KillerJob, max_attempts: int) -> Found:
    """Every good segment COMPLETED with its result, every killer FAILED by deaths of its own, the counters right."""
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT segment_id, status, attempts, result_json, error_message FROM segment_task WHERE job_id = :job"
            ),
            {"job": job.job_id},
        ).all()
    wrong = [what for row in rows if (what := _wrong(job, row, max_attempts))]
    known = {row.segment_id for row in rows}
    wrong += [f"{name} has no row" for name in (job.killers | job.answers.keys()) - known]
    return Found(
        statuses=Counter(row.status for row in rows),
        attempts=Counter(row.attempts for row in rows if row.segment_id not in job.killers),
        problems=(*problems(engine), *wrong),
    )


def _wrong(job: KillerJob, row: Any, max_attempts: int) -> str | None:
    if row.segment_id in job.killers:
        abandoned = row.status == "FAILED" and re.match(rf"abandoned {max_attempts} times", row.error_message or "")
        return None if abandoned else f"{row.segment_id} is {row.status}: {row.error_message}"
    if row.status != "COMPLETED":
        return f"{row.segment_id} is {row.status} after {row.attempts} attempts: {row.error_message}"
    if canonical(row.result_json) != canonical(job.answers[row.segment_id]):
        return f"{row.segment_id} has another result"
    return None

"""The judgement: every invariant of docs/formats.md, read from PostgreSQL, both queues and the logs.

Invariant: nothing of `app` decides here; the statements are this file's own, and what each segment went through was
written down by PostgreSQL (`surroundings.AUDIT`).
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.chaos.crew import Start, odd_ends
from tests.chaos.load import Asked
from tests.chaos.receives import read_all
from tests.chaos.surroundings import MAX_ATTEMPTS, Surroundings
from tests.support.answers import canonical
from tests.support.endstate import completions, problems
from tests.support.engine import Engine
from tests.support.killer import PREFIX

MOST_SHOWN: Final = 10

SEGMENTS: Final = """
SELECT t.task_id::text, t.job_id::text, j.manifestation_id, j.status AS job_status, t.segment_id, t.status,
       t.result_json, t.error_message, t.attempts, t.retry_at, t.lease_expires_at, t.claimed_by
FROM segment_task t JOIN root_job j USING (job_id)
"""

# A segment is claimed from somebody who still holds it; claimed before its retry is due; unfinished again; ended twice;
# claimed beside others, or charged, after a death that it may have shared with others.
BROKEN: Final = """
SELECT 'claimed while ' || old_worker || ' held it for another ' || round(extract(epoch FROM old_lease - at), 2) || ' s'
       AS what, task_id::text
FROM chaos_audit WHERE was = 'IN_PROGRESS' AND became = 'IN_PROGRESS' AND old_lease > at
UNION ALL
SELECT 'claimed before its retry was due', task_id::text
FROM chaos_audit WHERE was = 'RETRYING' AND became = 'IN_PROGRESS' AND old_retry_at > at
UNION ALL
SELECT 'claimed beside others after its worker''s death', task_id::text
FROM chaos_audit WHERE was = 'IN_PROGRESS' AND became = 'IN_PROGRESS' AND NOT new_alone
UNION ALL
SELECT 'charged for a death that it was not alone in', task_id::text
FROM chaos_audit WHERE was = 'IN_PROGRESS' AND became = 'IN_PROGRESS' AND new_attempts > old_attempts AND NOT old_alone
UNION ALL
SELECT 'left COMPLETED', task_id::text FROM chaos_audit WHERE was = 'COMPLETED'
UNION ALL
SELECT 'ended ' || count(*) FILTER (WHERE became IN ('COMPLETED', 'FAILED')) || ' times', task_id::text
FROM chaos_audit GROUP BY task_id
HAVING count(*) FILTER (WHERE became IN ('COMPLETED', 'FAILED')) > 1 + count(*) FILTER (WHERE was = 'FAILED')
UNION ALL
SELECT 'ended without a claim', task_id::text
FROM chaos_audit WHERE became IN ('COMPLETED', 'FAILED') AND was <> 'IN_PROGRESS'
UNION ALL
SELECT 'given back and charged', task_id::text
FROM chaos_audit WHERE was = 'IN_PROGRESS' AND became = 'QUEUED' AND new_attempts >= old_attempts AND old_attempts > 0
"""

# A FAILED segment is tried again when somebody sends its message again: here a producer that heard no answer.
REVIVED: Final = """
SELECT t.job_id::text, t.segment_id, extract(epoch FROM a.old_failed_at) * 1000 AS failed_at_ms
FROM chaos_audit a JOIN segment_task t USING (task_id)
WHERE a.was = 'FAILED'
"""

OUTBOX: Final = """
SELECT job_id::text FROM completion_outbox WHERE sent_at IS NULL OR lease_token IS NOT NULL OR leased_until IS NOT NULL
"""

EXPLAINED: Final = (
    re.compile(r" - ERROR - Message \S+ is poison: "),
    re.compile(r" - ERROR - Segment .* is poison: manifestation_id: the job belongs to "),
    re.compile(r" - ERROR - Segment .* is poison: message: start must not be greater than end"),
    re.compile(r" - ERROR - A segment of job \S+ is poison: segment_id: must have 1 to 512 bytes"),
    re.compile(r" - ERROR - Segment .* has failed: (the )?manifestation 'no-such-text-"),
    re.compile(rf" - ERROR - Segment {PREFIX}\d+ of job \S+ has failed: abandoned \d+ times"),
    re.compile(r" - ERROR - Segment .* is unknown \d+ s after its message was sent"),
)
"""What the poison, the unknown texts and the killers of the load must lead to."""
_LIBPQ: Final = re.compile(
    r"^FATAL:  terminating connection due to (administrator command|unexpected postmaster exit)$"
)
"""The library prints it by itself when a connection is ended in the moment in which it is being opened."""
_LINE: Final = re.compile(r"^[\d-]+ [\d:]+ - (\S+) - ([A-Z]+) - (.*)$")


@dataclass(slots=True)
class Verdict:
    """What was found wrong, and figures that belong to the judgement."""

    problems: list[str] = field(default_factory=list)
    jobs: Counter[str] = field(default_factory=Counter)
    segments: Counter[str] = field(default_factory=Counter)
    announced: Counter[str] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)
    revived: int = 0
    killers: int = 0
    """Segments that killed their workers and have FAILED for it."""

    def add(self, what: str, found: Sequence[str]) -> None:
        """Note findings of one kind, not too many of them."""
        self.problems += [f"{what}: {each}" for each in found[:MOST_SHOWN]]
        if len(found) > MOST_SHOWN:
            self.problems.append(f"{what}: and {len(found) - MOST_SHOWN} more")


def judge(around: Surroundings, asked: Asked, starts: list[Start]) -> Verdict:
    """Everything; takes the messages off the queues."""
    verdict = Verdict()
    verdict.add("tables", problems(around.admin))
    segments = read(around.admin, SEGMENTS)
    known = {row.job_id: row for row in segments}
    verdict.add("lost job", [job for job in asked.jobs if job not in known])
    verdict.jobs.update(row.job_status for row in known.values())
    verdict.segments.update(row.status for row in segments)
    failed = {(row.job_id, row.segment_id) for row in segments if row.status == "FAILED"}
    verdict.add("segment", [what for row in segments if (what := _wrong(around, row, verdict))])
    verdict.add("history", [f"segment {row.task_id} was {row.what}" for row in read(around.admin, BROKEN)])
    _judge_revivals(around, starts, verdict)
    verdict.add("outbox", [f"job {row.job_id} was not announced" for row in read(around.admin, OUTBOX)])
    verdict.announced = completions(around.completed)
    complete = {job for job, row in known.items() if row.job_status == "COMPLETED"}
    verdict.add("completion", [f"job {job} has no message" for job in complete - verdict.announced.keys()])
    verdict.add("completion", [f"job {job} has one, incomplete" for job in verdict.announced.keys() - complete])
    _judge_dead_letters(around, asked, failed, verdict)
    verdict.add("queue", _leftovers(around))
    verdict.add("worker", odd_ends(starts))
    if next(read_all(starts), None) is None:
        verdict.add("worker", ["nobody noted what was received"])
    verdict.add("log", [line for start in starts for line in unexplained(start)])
    return verdict


def _judge_revivals(around: Surroundings, starts: Sequence[Start], verdict: Verdict) -> None:
    """Each needs a message that was sent after the failure."""
    rows = read(around.admin, REVIVED)
    verdict.revived = len(rows)
    last_sent_at_ms: dict[tuple[str, str], int] = {}
    for receive in read_all(starts) if rows else ():
        key = (receive.job_id, receive.segment_id)
        last_sent_at_ms[key] = max(receive.sent_at_ms, last_sent_at_ms.get(key, 0))
    verdict.add(
        "history",
        [
            f"segment {row.segment_id} of job {row.job_id} was revived by nothing"
            for row in rows
            if last_sent_at_ms.get((row.job_id, row.segment_id), 0) <= row.failed_at_ms
        ],
    )


def read(engine: Engine, sql: str) -> list[Any]:
    """The rows of a statement of ours."""
    with engine.connect() as connection:
        return list(connection.exec_driver_sql(sql).all())


def _wrong(around: Surroundings, row: Any, verdict: Verdict) -> str | None:
    """What is wrong with a segment's ending, if anything is."""
    name = f"{row.segment_id} of job {row.job_id} ({row.manifestation_id})"
    if row.segment_id.startswith(PREFIX):
        verdict.killers += 1
        right = row.status == "FAILED" and (row.error_message or "").startswith(f"abandoned {MAX_ATTEMPTS} times")
        return None if right else f"{name} is {row.status}, it kills its workers: {row.error_message}"
    answers = around.library.answers.get(row.manifestation_id)
    if answers is None:
        right = row.status == "FAILED" and "does not exist" in (row.error_message or "")
        return None if right else f"{name} is {row.status}, its text is unknown: {row.error_message}"
    if row.status == "COMPLETED":
        right = canonical(row.result_json) == canonical(answers[row.segment_id])
        return None if right else f"{name} has another result"
    return f"{name} is {row.status} after {row.attempts} attempts: {row.error_message}"


def _judge_dead_letters(around: Surroundings, asked: Asked, failed: set[tuple[str, str]], verdict: Verdict) -> None:
    letters = drain(around)
    for body in letters:
        verdict.dead_letters[asked.poison.get(body) or _kind(body, failed)] += 1
    verdict.add("dead letter", [body[:300] for body in letters if not _belongs(body, asked, failed)])
    missing = [f"{kind}: {body[:100]}" for body, kind in asked.poison.items() if body not in letters]
    verdict.add("no dead letter", missing)


def _belongs(body: str, asked: Asked, failed: set[tuple[str, str]]) -> bool:
    return body in asked.poison or _kind(body, failed) != "wrong"


def _kind(body: str, failed: set[tuple[str, str]]) -> str:
    try:
        message = json.loads(body)
        return "of a FAILED segment" if (message["job_id"], message["segment_id"]) in failed else "wrong"
    except (ValueError, KeyError, TypeError):
        return "wrong"


def drain(around: Surroundings) -> set[str]:
    """The bodies of all dead letters; takes them off the queue."""
    bodies: set[str] = set()
    empty = 0
    while empty < 2:
        messages = around.dead_letters.receive(10, 0, 60)
        empty = 0 if messages else empty + 1
        bodies.update(message["Body"] for message in messages)
        if messages:
            around.dead_letters.delete([message["ReceiptHandle"] for message in messages])
    return bodies


def _leftovers(around: Surroundings) -> list[str]:
    left = around.segments.facts().messages
    return [f"{left} messages are left on the input queue"] if left else []


def unexplained(start: Start) -> list[str]:
    """ERROR lines that nothing of the load explains, and every line that is no log line (a traceback)."""
    found = []
    for line in start.text().splitlines(keepends=True):
        match = _LINE.match(line)
        if match is None:
            # The last one of a killed worker may be cut short.
            is_odd = line.endswith("\n") and not _LIBPQ.match(line.rstrip("\n"))
        else:
            is_odd = match[2] in ("ERROR", "CRITICAL") and not any(pattern.search(line) for pattern in EXPLAINED)
        if is_odd:
            found.append(f"{start.log.name}: {line.strip()[:300]}")
    return found


def warnings(starts: Iterable[Start]) -> Counter[str]:
    """The kinds of WARNING lines, ids and numbers taken out, and how often each was said."""
    count: Counter[str] = Counter()
    for start in starts:
        for line in start.text().splitlines():
            match = _LINE.match(line)
            if match is not None and match[2] == "WARNING":
                count[_shape(match[3])] += 1
    return count


def _shape(text: str) -> str:
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "<id>", text)
    text = re.sub(r"(Segment|segment) \S+", r"\1 <id>", text)
    text = re.sub(r"(job <id>(, )?)+", "jobs ...", text)
    return re.sub(r"\d+(\.\d+)?", "<n>", text)[:150]

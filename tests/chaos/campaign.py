"""One run from beginning to end: set up, break, heal, drain, judge, report."""

import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos import faults, load
from tests.chaos.crew import Crew
from tests.chaos.faults import Tormentor
from tests.chaos.load import Load
from tests.chaos.report import report
from tests.chaos.surroundings import (
    BASE_LATENCY_SECONDS,
    GRACE_SECONDS,
    MAX_ATTEMPTS,
    MAX_RECEIVE_COUNT,
    RESEND_AFTER_SECONDS,
    SWEEP_SECONDS,
    VISIBILITY_SECONDS,
    Surroundings,
    surroundings,
)
from tests.chaos.verdict import judge, read

PROGRESS_SECONDS: Final = 15.0
TEND_SECONDS: Final = 0.2
START_LIMIT_SECONDS: Final = 60.0
LONG_DRAIN_SECONDS: Final = 60.0
"""Of peace, after which what is left is shown: it ends, as a rule, but what it waits for is worth knowing."""

PROGRESS: Final = """
SELECT (SELECT count(*) FROM root_job) AS jobs,
       (SELECT count(*) FROM root_job WHERE status IN ('COMPLETED', 'FAILED')) AS jobs_ended,
       count(*) AS segments,
       count(*) FILTER (WHERE status IN ('COMPLETED', 'FAILED')) AS segments_ended,
       (SELECT count(*) FROM completion_outbox WHERE sent_at IS NULL) AS unannounced
FROM segment_task
"""
STUCK: Final = """
SELECT t.segment_id, t.job_id::text, j.manifestation_id, t.status, t.attempts, t.claimed_by, t.lease_expires_at,
       t.retry_at, t.last_sent_at, t.send_count, t.error_message, clock_timestamp() AS now
FROM segment_task t JOIN root_job j USING (job_id)
WHERE t.status NOT IN ('COMPLETED', 'FAILED') ORDER BY t.created_at LIMIT 20
"""


@dataclass(frozen=True, slots=True)
class Options:
    """See ``python -m tests.chaos --help``."""

    seconds: float
    seed: int
    workers: int
    rate: float
    drain_seconds: float
    only: tuple[str, ...] = ()
    keep_logs: bool = False


def run(options: Options) -> int:
    """The exit code: 0 when every invariant held."""
    say(
        f"chaos: --seed {options.seed} --seconds {options.seconds:g} --workers {options.workers}"
        f" --rate {options.rate:g}\n"
        f"MAX_ATTEMPTS {MAX_ATTEMPTS}, maxReceiveCount {MAX_RECEIVE_COUNT}, visibility {VISIBILITY_SECONDS} s,"
        f" grace {GRACE_SECONDS} s, sweep every {SWEEP_SECONDS:g} s, re-sent after {RESEND_AFTER_SECONDS:g} s,"
        f" {BASE_LATENCY_SECONDS * 1000:g} ms a round trip"
    )
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{options.seed}-"))
    try:
        with surroundings(f"{options.seed}-{os.getpid()}") as around:
            held = _run(options, around, folder)
    except BaseException:
        say(f"the workers' logs are in {folder}")
        raise
    if held and not options.keep_logs:
        shutil.rmtree(folder)
    else:
        say(f"the workers' logs are in {folder}")
    return 0 if held else 1


def say(text: str) -> None:
    """A line for a person, at once."""
    print(text, flush=True)


def _run(options: Options, around: Surroundings, folder: Path) -> bool:
    crew = Crew(options.workers, around.environment, folder)
    work = Load(around, load.plan(around.library, options.seed, options.seconds, options.rate))
    tormentor = Tormentor(around, crew, faults.plan(options.seed, options.seconds, options.workers, options.only))
    try:
        _await_listening(crew)
        began = time.monotonic()
        work.start()
        tormentor.start()
        _watch(crew, around, began, until=began + options.seconds)
        broken_seconds = time.monotonic() - began
        tormentor.finish()
        work.finish()
        say(f"{time.monotonic() - began:5.0f} s  everything is healed; finishing what is left")
        drained = _drain(crew, around, began, options.drain_seconds)
        drain_seconds = time.monotonic() - began - broken_seconds
        crew.retire()
    finally:
        crew.abandon()
    if not drained:
        _print_stuck(around)
    verdict = judge(around, work.asked, crew.starts)
    if not drained:
        verdict.problems.insert(0, f"work was left after {options.drain_seconds:g} s of peace")
    verdict.add("harness", tormentor.errors)
    say(report(around, work.asked, crew.starts, tormentor, verdict, (broken_seconds, drain_seconds)))
    return not verdict.problems


def _await_listening(crew: Crew) -> None:
    """Not to count how slow this machine starts Python: everybody is there when the first thing breaks."""
    deadline = time.monotonic() + START_LIMIT_SECONDS
    crew.tend()
    while not all(start.listens for start in crew.starts) and time.monotonic() < deadline:
        crew.tend()
        time.sleep(TEND_SECONDS)


def _watch(crew: Crew, around: Surroundings, began: float, until: float) -> None:
    """Keep the workers running, and say how it goes."""
    said = time.monotonic()
    while time.monotonic() < until:
        crew.tend()
        time.sleep(TEND_SECONDS)
        if time.monotonic() - said > PROGRESS_SECONDS:
            said = time.monotonic()
            _say_progress(crew, around, began)


def _say_progress(crew: Crew, around: Surroundings, began: float) -> None:
    try:
        row = read(around.admin, PROGRESS)[0]
    except Exception as error:
        say(f"{time.monotonic() - began:5.0f} s  PostgreSQL does not answer ({type(error).__name__})")
        return
    say(
        f"{time.monotonic() - began:5.0f} s  jobs {row.jobs_ended:,} of {row.jobs:,}, segments {row.segments_ended:,}"
        f" of {row.segments:,}, {len(crew.starts)} worker starts"
    )


def _drain(crew: Crew, around: Surroundings, began: float, limit_seconds: float) -> bool:
    """Whether every job has ended, every completion is sent and the input queue is empty, within the limit."""
    deadline = time.monotonic() + limit_seconds
    said = drain_began = time.monotonic()
    has_shown = False
    while time.monotonic() < deadline:
        crew.tend()
        if not has_shown and time.monotonic() - drain_began > LONG_DRAIN_SECONDS:
            has_shown = True
            _print_stuck(around, "still unfinished")
        row = read(around.admin, PROGRESS)[0]
        if row.jobs == row.jobs_ended and not row.unannounced and not around.segments.facts().messages:
            return True
        if time.monotonic() - said > PROGRESS_SECONDS:
            said = time.monotonic()
            _say_progress(crew, around, began)
        time.sleep(0.5)
    return False


def _print_stuck(around: Surroundings, what: str = "stuck") -> None:
    print(f"{what}:", file=sys.stderr)
    for row in read(around.admin, STUCK):
        print("  " + ", ".join(f"{name} {value}" for name, value in row._mapping.items()), file=sys.stderr)
    print(f"  {around.segments.facts()} on the input queue", file=sys.stderr)

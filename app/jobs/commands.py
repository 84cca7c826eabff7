"""The commands of ``python -m app.jobs``, one function each; each gives its exit code.

Invariant: standard output holds only what was asked for (``create``: the job's id, before anything is sent, so that
a script has it even if the rest fails); progress and remarks go to standard error.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final

from rich.console import Console

from app.core.jobs import Job, NotFoundError
from app.errors import PermanentError, ProcessorError
from app.jobs import as_json, dead_letters, doctor, pruning, repairs
from app.jobs.choosing import choose_job
from app.jobs.explaining import describe_explanation, explanation_fields
from app.jobs.formats import FORMATS
from app.jobs.printing import (
    describe_job,
    describe_reconciliation,
    explain_miscount,
    print_jobs,
    say,
    say_error,
    sending_progress,
    tell,
    watching,
)
from app.jobs.producer import Sending, find_job
from app.jobs.standing import describe_depth, describe_standing, read_depth
from app.jobs.tables import print_relations
from app.jobs.wiring import COMPLETED_QUEUE, GRAPH, SEGMENTS_QUEUE, STORE, LazyParts, require
from app.logs import one_line
from app.pages.explain import explain as walk_and_explain

WATCH_SECONDS: Final = 0.5
MOST_NAMED: Final = 10


def create(parts: LazyParts, options: argparse.Namespace) -> int:
    """Make a job of each text and send its messages; a text that no job can be made of keeps no other back."""
    require(*STORE, *SEGMENTS_QUEUE, *GRAPH)
    code, manifestation_id = 0, None
    for manifestation_id in parts.graph.list_texts() if options.all else dict.fromkeys(options.manifestation_ids):
        try:
            job = parts.producer.create(manifestation_id)
        except PermanentError as error:
            say_error(one_line(str(error)))
            code = 1
            continue
        tell(job.job_id)
        code |= _send(parts, job, job.total_segments)
    if manifestation_id is None:
        raise NotFoundError("the graph has no manifestation that has segments")
    return code


def resume(parts: LazyParts, options: argparse.Namespace) -> int:
    """Send what was not sent."""
    require(*STORE, *SEGMENTS_QUEUE)
    return _send(parts, _job(parts, options), None)


def _job(parts: LazyParts, options: argparse.Namespace) -> Job:
    """The job that was typed. Raises `NotFoundError` or `AmbiguousError`."""
    return choose_job(parts.jobs, parts.standings, options.job_id)


def _send(parts: LazyParts, job: Job, wanted: int | None) -> int:
    """Send the job's unsent messages with a progress bar; 1 when some are not on the queue."""
    sent = 0
    try:
        with sending_progress(wanted) as advance:

            def on_sent(count: int) -> None:
                nonlocal sent
                sent += count
                advance(count)

            sending = parts.producer.send_unsent(job.job_id, on_sent)
    except PermanentError:
        raise
    except (ProcessorError, KeyboardInterrupt):
        say(f"Job {job.job_id} is saved, {_messages(sent)} of it went out. {_hint(job)}")
        raise
    return _report(parts, job, sending)


def _report(parts: LazyParts, job: Job, sending: Sending) -> int:
    text = one_line(job.manifestation_id)
    if not sending.sent and sending.is_complete:
        say(f"Job {job.job_id} of {text}: no message is waiting to be sent.")
        return 0
    say(f"Job {job.job_id} of {text}: {_messages(sending.sent)} went to the queue {parts.queue.name}.")
    for segment_id, reason in list(sending.refused.items())[:MOST_NAMED]:
        say(f"  not sent: segment {one_line(segment_id)}: {one_line(reason)}")
    for segment_id in sending.without_span[:MOST_NAMED]:
        say(f"  not sent: segment {one_line(segment_id)}: neither its row nor the graph knows its span")
    if sending.is_complete:
        return 0
    left = len(sending.refused) + len(sending.without_span)
    say(f"{_messages(left)} could not be sent. {_hint(job)}")
    return 1


def _hint(job: Job) -> str:
    return f"To send the rest: python -m app.jobs resume {job.job_id}"


def status(parts: LazyParts, options: argparse.Namespace) -> int:
    """Show one job and what it waits for, or watch it until it ends."""
    job = _job(parts, options)
    if options.watch:
        return _watch(parts, job, options.json)
    standing = parts.standings.look_at(job.job_id)
    miscounted = next(iter(parts.repairs.find_miscounted(job.job_id)), None)
    depth = None if job.has_ended else read_depth(parts)
    if options.json:
        fields = as_json.standing_fields(job, standing, miscounted)
        tell(as_json.line_of({**fields, "queue": depth and as_json.queue_fields(*depth)}))
        return 0
    tell(describe_job(job))
    tell(describe_standing(job, standing))
    if depth:
        tell(describe_depth(*depth))
    if miscounted:
        tell(explain_miscount(miscounted))
    return 0


def _watch(parts: LazyParts, job: Job, in_json: bool) -> int:
    """Until the job has ended; 1 when as FAILED."""
    with watching(job, (lambda job: as_json.line_of(as_json.job_fields(job))) if in_json else None) as update:
        while not job.has_ended:
            time.sleep(WATCH_SECONDS)
            job = find_job(parts.jobs, job.job_id)
            update(job)
    return 0 if job.status == "COMPLETED" else 1


def list_jobs(parts: LazyParts, options: argparse.Namespace) -> int:
    """Show the newest jobs."""
    jobs = parts.jobs.list_jobs(options.status, options.limit)
    if options.json:
        for job in jobs:
            tell(as_json.line_of(as_json.job_fields(job)))
    else:
        print_jobs(jobs)
    return 0


def show(parts: LazyParts, options: argparse.Namespace) -> int:
    """Print segments with their results: in the format that was asked for, a table at a terminal, else JSON lines."""
    job = _job(parts, options)
    records = parts.jobs.read_records(job.job_id, options.status)
    if options.format is None and not options.json and sys.stdout.isatty():
        print_relations(records, Console(highlight=False))
        return 0
    for text in FORMATS[options.format or "jsonl"](job, records):
        sys.stdout.write(text)
    if options.format == "tei" and job.completed_segments < job.total_segments:
        missing = job.total_segments - job.completed_segments
        say(f"{missing} segments of job {job.job_id} have no result and are left out.")
    return 0


def explain(parts: LazyParts, options: argparse.Namespace) -> int:
    """Tell a walk from a span of a text step by step, over the graph as it is now."""
    require(*GRAPH)
    explained = walk_and_explain(options.manifestation_id, options.start, options.end, parts.graph)
    if options.json:
        tell(as_json.line_of(explanation_fields(explained)))
    else:
        for line in describe_explanation(explained):
            tell(line)
    text = one_line(options.manifestation_id)
    extent = parts.graph.find_extent(options.manifestation_id)
    if extent and extent.end is not None and options.end > extent.end:
        say(f"The span reaches beyond {text}, whose last segment ends at {extent.end}.")
    if not explained.touches_segment:
        say(f"No segment of {text} overlaps {options.start} to {options.end}.")
    return 0


def retry(parts: LazyParts, options: argparse.Namespace) -> int:
    """Do the FAILED segments again."""
    require(*STORE, *SEGMENTS_QUEUE)
    job = _job(parts, options)
    requeued = repairs.retry(parts.repairs, parts.jobs, job.job_id)
    if requeued:
        tell(f"Job {job.job_id}: {_segments(requeued)} FAILED before, QUEUED again.")
    else:
        tell(f"Job {job.job_id} has no FAILED segments: nothing to retry.")
    return _send(parts, job, requeued or None)


def cancel(parts: LazyParts, options: argparse.Namespace) -> int:
    """End a job."""
    job_id = _job(parts, options).job_id
    ended = repairs.cancel(parts.repairs, parts.jobs, job_id)
    job = find_job(parts.jobs, job_id)
    tell(
        f"Job {job.job_id} is cancelled: {_segments(ended)} had not ended and FAILED now,"
        f" {job.completed_segments} of {job.total_segments} are COMPLETED.\n"
        f"To go on with it after all: python -m app.jobs retry {job.job_id}"
    )
    return 0


def reconcile(parts: LazyParts, options: argparse.Namespace) -> int:
    """Find and repair what is wrong, as each worker's sweep does."""
    require(*STORE, *SEGMENTS_QUEUE, *COMPLETED_QUEUE)
    job_id = _job(parts, options).job_id if options.job_id else None
    on_queue = parts.queue.facts().messages
    found = repairs.reconcile(parts.repairs, parts.sweep, job_id, options.after, on_queue)
    tell(describe_reconciliation(found, job_id, options.after, on_queue))
    return 0 if found.is_complete else 1


def _messages(count: int) -> str:
    return f"{count} message{'' if count == 1 else 's'}"


def _segments(count: int) -> str:
    return f"{count} segment{'' if count == 1 else 's'}"


COMMANDS: Final[Mapping[str, Callable[[LazyParts, argparse.Namespace], int]]] = {
    "create": create,
    "resume": resume,
    "status": status,
    "list": list_jobs,
    "show": show,
    "explain": explain,
    "retry": retry,
    "cancel": cancel,
    "reconcile": reconcile,
    "prune": pruning.run,
    "dead-letters": dead_letters.run,
    "doctor": doctor.run,
}
"""By the names that are typed (app/jobs/arguments.py)."""

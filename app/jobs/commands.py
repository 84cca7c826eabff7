"""The commands of ``python -m app.jobs``, one function each; each gives its exit code.

Invariant: standard output holds only what was asked for (``create``: the job's id, before anything is sent, so that
a script has it even if the rest fails); progress and remarks go to standard error.
"""

import argparse
import time
from typing import Final

from app.core.jobs import Job
from app.errors import PermanentError, ProcessorError
from app.jobs import repairs
from app.jobs.printing import (
    describe_job,
    describe_reconciliation,
    explain_miscount,
    print_jobs,
    print_record,
    say,
    sending_progress,
    tell,
    watching,
)
from app.jobs.producer import Sending, find_job
from app.jobs.wiring import COMPLETED_QUEUE, GRAPH, SEGMENTS_QUEUE, STORE, LazyParts, require
from app.logs import one_line

WATCH_SECONDS: Final = 0.5
MOST_NAMED: Final = 10


def create(parts: LazyParts, options: argparse.Namespace) -> int:
    """Make a job and send its messages."""
    require(*STORE, *SEGMENTS_QUEUE, *GRAPH)
    job = parts.producer.create(options.manifestation_id)
    tell(job.job_id)
    return _send(parts, job, job.total_segments)


def resume(parts: LazyParts, options: argparse.Namespace) -> int:
    """Send what was not sent."""
    require(*STORE, *SEGMENTS_QUEUE)
    job = find_job(parts.jobs, options.job_id)
    return _send(parts, job, None)


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
    """Show one job, or watch it until it ends."""
    job = find_job(parts.jobs, options.job_id)
    if not options.watch:
        tell(describe_job(job))
        for each in parts.repairs.find_miscounted(options.job_id):
            tell(explain_miscount(each))
        return 0
    with watching(job) as update:
        while not job.has_ended:
            time.sleep(WATCH_SECONDS)
            job = find_job(parts.jobs, options.job_id)
            update(job)
    return 0 if job.status == "COMPLETED" else 1


def list_jobs(parts: LazyParts, options: argparse.Namespace) -> int:
    """Show the newest jobs."""
    print_jobs(parts.jobs.list_jobs(options.status, options.limit))
    return 0


def show(parts: LazyParts, options: argparse.Namespace) -> int:
    """Print every segment with its result as JSON lines."""
    find_job(parts.jobs, options.job_id)
    for record in parts.jobs.read_records(options.job_id):
        print_record(record)
    return 0


def retry(parts: LazyParts, options: argparse.Namespace) -> int:
    """Do the FAILED segments again."""
    require(*STORE, *SEGMENTS_QUEUE)
    job = find_job(parts.jobs, options.job_id)
    requeued = repairs.retry(parts.repairs, parts.jobs, options.job_id)
    if requeued:
        tell(f"Job {job.job_id}: {_segments(requeued)} FAILED before, QUEUED again.")
    else:
        tell(f"Job {job.job_id} has no FAILED segments: nothing to retry.")
    return _send(parts, job, requeued or None)


def cancel(parts: LazyParts, options: argparse.Namespace) -> int:
    """End a job."""
    ended = repairs.cancel(parts.repairs, parts.jobs, options.job_id)
    job = find_job(parts.jobs, options.job_id)
    tell(
        f"Job {job.job_id} is cancelled: {_segments(ended)} had not ended and FAILED now,"
        f" {job.completed_segments} of {job.total_segments} are COMPLETED.\n"
        f"To go on with it after all: python -m app.jobs retry {job.job_id}"
    )
    return 0


def reconcile(parts: LazyParts, options: argparse.Namespace) -> int:
    """Find and repair what is wrong, as each worker's sweep does."""
    require(*STORE, *SEGMENTS_QUEUE, *COMPLETED_QUEUE)
    if options.job_id:
        find_job(parts.jobs, options.job_id)
    on_queue = parts.queue.facts().messages
    found = repairs.reconcile(parts.repairs, parts.sweep, options.job_id, options.after, on_queue)
    tell(describe_reconciliation(found, options.job_id, options.after, on_queue))
    return 0 if found.is_complete else 1


def _messages(count: int) -> str:
    return f"{count} message{'' if count == 1 else 's'}"


def _segments(count: int) -> str:
    return f"{count} segment{'' if count == 1 else 's'}"

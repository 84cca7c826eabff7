"""How jobs look to a person at a terminal, and to a program behind a pipe.

Invariant: ids come from outside, so each is printed on one line with its control characters escaped and never read
as markup.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from app.core.jobs import Drift, Job, Miscount, Outlook
from app.jobs.repairs import Reconciliation
from app.logs import one_line

TIME_FORMAT: Final = "%Y-%m-%d %H:%M:%S %Z"
SHORT_TIME_FORMAT: Final = "%m-%d %H:%M"
CORRECTION: Final = "UPDATE root_job SET total_segments = {rows} WHERE job_id = '{job_id}';"
"""For an operator to read and run, never run here."""
STYLES: Final = {"QUEUED": "", "IN_PROGRESS": "cyan", "COMPLETED": "green", "FAILED": "red"}


def tell(text: str) -> None:
    """To standard output, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """A remark, to standard error."""
    sys.stderr.write(f"{text}\n")


def say_error(text: str) -> None:
    """What went wrong, as a sentence, to standard error."""
    say(f"{text[:1].upper()}{text[1:]}")


def describe_job(job: Job) -> str:
    """A few aligned lines."""
    lines = {
        "job": job.job_id,
        "manifestation": one_line(job.manifestation_id),
        "status": f"{job.status} (cancelled)" if job.cancelled_at else job.status,
        "segments": f"{job.total_segments}: {_counts(job)}",
        "created": job.created_at.astimezone().strftime(TIME_FORMAT),
        "updated": job.updated_at.astimezone().strftime(TIME_FORMAT),
    }
    return "\n".join(aligned(name, value) for name, value in lines.items())


def aligned(name: str, value: str) -> str:
    """A line of what is shown of one job."""
    return f"{name:<14} {value}"


def _counts(job: Job) -> str:
    return f"{job.completed_segments} completed, {job.failed_segments} failed, {job.open_segments} to do"


def print_jobs(jobs: Sequence[Job]) -> None:
    """A table at a terminal; behind a pipe lines of tab-separated columns under a header."""
    if not sys.stdout.isatty():
        tell("job_id\tmanifestation_id\tstatus\tcompleted\tfailed\ttotal\tcreated_at")
        for job in jobs:
            counts = f"{job.completed_segments}\t{job.failed_segments}\t{job.total_segments}"
            text = one_line(job.manifestation_id)
            tell(f"{job.job_id}\t{text}\t{job.status}\t{counts}\t{job.created_at.isoformat()}")
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("JOB", no_wrap=True, min_width=36)
    table.add_column("MANIFESTATION", no_wrap=True, overflow="ellipsis", min_width=8)
    table.add_column("STATUS", no_wrap=True)
    table.add_column("DONE", no_wrap=True, justify="right")
    table.add_column("CREATED", no_wrap=True)
    for job in jobs:
        table.add_row(
            job.job_id,
            Text(one_line(job.manifestation_id)),
            Text(job.status, style=STYLES.get(job.status, "")),
            f"{job.completed_segments}/{job.total_segments}",
            job.created_at.astimezone().strftime(SHORT_TIME_FORMAT),
        )
    Console().print(table if jobs else "There are no such jobs.")


def describe_reconciliation(found: Reconciliation, job_id: str | None, after_seconds: float, on_queue: int) -> str:
    """What was found, what was done about it, and what it leaves to whom, a line each."""
    swept = found.swept
    lines = [f"{_drift(each)}: mended" for each in found.repaired]
    for count, words in (
        (swept.jobs_ended, "jobs had ended without being told so: their status is set"),
        (swept.outbox_rows_added, "COMPLETED jobs had no completion message to send: it is made"),
        (swept.completions_sent, "completion messages had not been sent: they are"),
        (swept.segments_resent, "unfinished segments were in nobody's hands: their messages are sent again"),
        (swept.segments_without_span, "unfinished segments have no known span: NOT sent, see the lines above"),
    ):
        if count:
            lines.append(f"{count} {words}")
    again = f"python -m app.jobs reconcile{f' {job_id}' if job_id else ''} --after"
    if found.left:
        lines.append(
            f"{found.left} more are in nobody's hands: NOT sent. The queue held {on_queue} messages before, and nobody"
            f" can tell whether theirs are among them; once it is emptier: {again} {after_seconds:.0f}"
        )
    lines += [explain_miscount(each) for each in found.miscounted]
    return "\n".join([*(lines or ["Nothing to repair."]), *_outlook(found.outlook, after_seconds, again)])


def _outlook(outlook: Outlook, after_seconds: float, again: str) -> list[str]:
    """What is not broken, or can't be told yet."""
    lines = []
    if outlook.held:
        lines.append(f"{outlook.held} are held by workers, the last until {moment(outlook.held_until)}")
    if outlook.waiting:
        lines.append(f"{outlook.waiting} wait for their next attempt, the last until {moment(outlook.waiting_until)}")
    if outlook.quiet:
        lines.append(
            f"{outlook.quiet} were sent less than {_duration(after_seconds)} ago, twice as long after each repeat, so"
            f" their messages may still be on their way; workers send them again from {moment(outlook.quiet_until)}"
            f" on, and this does so now: {again} 0"
        )
    if not lines:
        return []
    unfinished = "1 segment was" if outlook.unfinished == 1 else f"{outlook.unfinished} segments were"
    return [f"{unfinished} unfinished:", *(f"  {line}" for line in lines)]


def moment(at: datetime | None) -> str:
    """A time as this machine's clock shows it."""
    return at.astimezone().strftime(TIME_FORMAT) if at else "?"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"


def explain_miscount(job: Miscount) -> str:
    """What is wrong with a job's `total_segments`, and what to do about it."""
    cancel = f"end it: python -m app.jobs cancel {job.job_id}"
    if job.rows == 0:
        what = f"job {job.job_id} ({job.status}) has no segments"
        return f"{what}: unless its producer has yet to write them, {cancel}" if job.is_stuck else what
    what = f"total_segments of job {job.job_id} ({job.status}) says {job.total_segments}, it has {job.rows} segments"
    correct = CORRECTION.format(rows=job.rows, job_id=job.job_id)
    if job.is_stuck:
        return f"{what}: it can't end. If no more are to come, correct it: {correct} or {cancel}"
    if job.rows > job.total_segments:
        return f"{what}: it ends with the last of them. To correct it: {correct}"
    return what


def _drift(drift: Drift) -> str:
    counters = f"{drift.completed_segments} completed and {drift.failed_segments} failed"
    rows = f"{drift.completed_rows} and {drift.failed_rows}"
    return f"job {drift.job_id} ({drift.status}) counted {counters} of {drift.total_segments}, its rows say {rows}"


@contextmanager
def sending_progress(total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error while messages are sent, gone afterwards; nothing without a terminal."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("sending messages"),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task("", total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def watching(job: Job, to_line: Callable[[Job], str] | None = None) -> Iterator[Callable[[Job], None]]:
    """Shows the job as it is and again at each call: a bar at a terminal, else a line for each change.

    With `to_line` those lines are its, also at a terminal.
    """
    if to_line or not sys.stdout.isatty():
        last = ""

        def tell_change(job: Job) -> None:
            nonlocal last
            if _line(job) != last:
                last = _line(job)
                tell(to_line(job) if to_line else last)

        tell_change(job)
        yield tell_change
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", style="red"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console()) as progress:
        task = progress.add_task(job.status, total=job.total_segments, completed=job.completed_segments, note="")

        def update(job: Job) -> None:
            note = f"{job.failed_segments} failed" if job.failed_segments else ""
            progress.update(task, description=job.status, completed=job.completed_segments, note=note)

        update(job)
        yield update


def _line(job: Job) -> str:
    return f"{job.status} {_counts(job)} of {job.total_segments}"

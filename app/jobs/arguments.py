"""What can be typed after ``python -m app.jobs``.

Invariant: nothing but the standard library and our own values is imported to read a command line or to print its
help, and what was typed wrong is told before anything is connected to.
"""

import argparse
import re
import uuid
from collections.abc import Sequence
from typing import Final

from app.core.jobs import JOB_STATUSES, SEGMENT_STATUSES
from app.core.unsent import RESEND_AFTER_SECONDS
from app.errors import PermanentError

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_CONFIGURATION: Final = 2
EXIT_INTERRUPTED: Final = 130
EXIT_CODES: Final = {
    EXIT_DONE: "done",
    EXIT_FAILED: "it could not be done, or not all of it; the job watched ended as FAILED; the doctor found a fault",
    EXIT_CONFIGURATION: "the settings or what was typed are wrong",
    EXIT_INTERRUPTED: "interrupted",
}

DESCRIPTION: Final = "Make jobs, look at them, and mend them. A job is all segments of one manifestation."
EPILOG: Final = """JOB is a job's id, or the first 4 or more characters of one, in any letter case.

examples:
  python -m app.jobs create M-1234
  python -m app.jobs status 550e8400 --watch
  python -m app.jobs list --status FAILED

exit codes:
{codes}

What is asked for goes to standard output, everything else to standard error. With --json a command that reads prints
one JSON object a line, whose fields docs/commands.md lists. Settings come from the environment or .env; env.example
explains each."""

FORMATS: Final = ("jsonl", "csv", "tei")
MAX_OFFSET: Final = 2**63 - 1
FEWEST_ID_DIGITS: Final = 4
_DIGITS: Final = re.compile(r"[0-9a-f]{4,32}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; `command` names the command's function in `app.jobs.commands`. Exits with 2 on a usage error."""
    parser = _make_parser()
    options = parser.parse_args(arguments)
    if options.command == "explain" and options.start > options.end:
        parser.error(f"START must not be greater than END, {options.start} is greater than {options.end}")
    if options.command == "show" and options.json and options.format not in (None, "jsonl"):
        parser.error(f"--json and --format {options.format} are two formats")
    return options


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m app.jobs",
        description=DESCRIPTION,
        epilog=EPILOG.format(codes="\n".join(f"  {code:<5}{meaning}" for code, meaning in EXIT_CODES.items())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    _add_making(commands)
    _add_looking(commands)
    _add_mending(commands)
    _add_dead_letters(commands)
    return parser


type _Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def _add_making(commands: _Commands) -> None:
    create = commands.add_parser(
        "create", help="make a job from each manifestation's segments and send its messages; prints the jobs' ids"
    )
    which = create.add_mutually_exclusive_group(required=True)
    which.add_argument("manifestation_ids", metavar="MANIFESTATION", type=_manifestation_id, nargs="*", default=[])
    which.add_argument("--all", action="store_true", help="every manifestation of the graph that has segments")
    _add_job(commands.add_parser("resume", help="send the messages of a job that `create` could not send"))


def _add_looking(commands: _Commands) -> None:
    status = _add_job(commands.add_parser("status", help="show one job, and what its unfinished segments wait for"))
    status.add_argument("--watch", action="store_true", help="until it ends; exit code 1 if it ends as FAILED")
    show = _add_job(
        commands.add_parser(
            "show", help="print a job's segments with their results: a table at a terminal, else one JSON object a line"
        )
    )
    show.add_argument(
        "--format",
        choices=FORMATS,
        help="jsonl: as behind a pipe; csv: a row for each related segment; tei: a standOff with a linkGrp a segment",
    )
    show.add_argument(
        "--status", choices=SEGMENT_STATUSES, metavar="S", help=f"only these: {', '.join(SEGMENT_STATUSES)}"
    )
    listing = commands.add_parser("list", help="show the newest jobs")
    listing.add_argument("--status", choices=JOB_STATUSES, metavar="S", help=f"only these: {', '.join(JOB_STATUSES)}")
    listing.add_argument("--limit", type=_positive, default=20, metavar="N", help="at most N (default: 20)")
    explain = commands.add_parser(
        "explain",
        help="tell step by step how the segments related to a span are found",
        description="Walk the graph as it is now, without a job: which pair of annotations, which hits, which span is"
        " carried on, why a pair is passed over.",
    )
    explain.add_argument("manifestation_id", metavar="MANIFESTATION", type=_manifestation_id)
    explain.add_argument("start", metavar="START", type=_offset, help="the first character of the span, from 0 on")
    explain.add_argument("end", metavar="END", type=_offset, help="the first character after the span")
    doctor = commands.add_parser(
        "doctor",
        help="say what is wrong with settings, services, queues and graph, and what mends it; 1 when anything is",
    )
    for reading in (status, show, listing, explain, doctor):
        _add_json(reading)


def _add_mending(commands: _Commands) -> None:
    _add_job(commands.add_parser("retry", help="do a job's FAILED segments again"))
    _add_job(commands.add_parser("cancel", help="end a job: its unfinished segments are FAILED"))
    reconcile = commands.add_parser(
        "reconcile", help="find and mend wrong counters, forgotten completions and lost messages"
    )
    reconcile.add_argument("job_id", metavar="JOB", type=_job_id, nargs="?", help="only this job (default: all)")
    reconcile.add_argument(
        "--after",
        type=_seconds,
        default=RESEND_AFTER_SECONDS,
        metavar="SECONDS",
        help="send a message again when the last one is older than this, doubled with each repeat; 0 sends again now,"
        " as many as the queue has room for (default: %(default).0f)",
    )
    prune = commands.add_parser("prune", help="delete jobs that ended long ago, with their segments and results")
    prune.add_argument(
        "--older-than",
        type=_days,
        required=True,
        metavar="DAYS",
        help="whose last segment ended so long ago; a job that has not ended is never deleted",
    )
    prune.add_argument("--dry-run", action="store_true", help="say how many it would be, and delete nothing")


def _add_dead_letters(commands: _Commands) -> None:
    letters = commands.add_parser("dead-letters", help="look at the messages that were given up, redrive or drop them")
    actions = letters.add_subparsers(required=True, metavar="ACTION", dest="action")
    listing = actions.add_parser(
        "list", help="show which segments they are of, why and since when; looking hides them from others for a moment"
    )
    listing.add_argument("--limit", type=_positive, default=100, metavar="N", help="at most N (default: 100)")
    _add_json(listing)
    redrive = actions.add_parser("redrive", help="send them to the input queue again, which revives their segments")
    drop = actions.add_parser("drop", help="delete them; their segments stay FAILED")
    for action in (redrive, drop):
        which = action.add_mutually_exclusive_group(required=True)
        which.add_argument(
            "message_ids", metavar="MESSAGE", nargs="*", default=[], help="a message id, as `list` shows it"
        )
        which.add_argument("--all", action="store_true", help="all that are there now; asks first at a terminal")
        action.add_argument("--yes", action="store_true", help="do not ask (for scripts)")


def _add_job(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("job_id", metavar="JOB", type=_job_id)
    return parser


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object a line (fields: docs/commands.md)")


def _job_id(text: str) -> str:
    """A whole id as PostgreSQL writes it or, of a beginning, its digits; see `app.jobs.choosing`."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        lowered = text.lower()
        digits = lowered.replace("-", "")
        if _DIGITS.fullmatch(digits) and (
            lowered == digits or str(uuid.UUID(digits.ljust(32, "0"))).startswith(lowered)
        ):
            return digits
        example = "550e8400-e29b-41d4-a716-446655440000"
        raise argparse.ArgumentTypeError(
            f"JOB must be a UUID such as {example}, not {text!r:.60},"
            f" or the first {FEWEST_ID_DIGITS} or more characters of one"
        ) from None


def _manifestation_id(text: str) -> str:
    from app.jobs.producer import check_id

    try:
        check_id(text)
    except PermanentError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:10]) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 1000000, not {text!r:.60}")
    return int(text)


def _offset(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text[:20]) > MAX_OFFSET:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {MAX_OFFSET}, not {text!r:.60}")
    return int(text)


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days <= 36_500:
        raise argparse.ArgumentTypeError(f"must be a number of days from 0 to 36500, not {text!r:.60}")
    return days


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 1e9:
        raise argparse.ArgumentTypeError(f"must be a number of seconds from 0 on, not {text!r:.60}")
    return seconds

"""The command line of ``python -m app.jobs``: what can be typed, and the exit codes.

Invariant: what goes wrong is told in one message without a traceback.

Exit codes: 0 done; 1 it could not be done, or not all of it; 2 the settings or what was typed are wrong;
130 interrupted.
"""

import argparse
import os
import sys
import uuid
from collections.abc import Sequence
from typing import Final

from app.core.jobs import JOB_STATUSES
from app.core.unsent import RESEND_AFTER_SECONDS
from app.errors import ConfigurationError, PermanentError, ProcessorError
from app.jobs import commands as commands
from app.jobs.producer import check_id
from app.jobs.wiring import LazyParts
from app.logs import setup_logging

EXIT_FAILED: Final = 1
EXIT_CONFIGURATION: Final = 2
EXIT_INTERRUPTED: Final = 130

DESCRIPTION: Final = "Make jobs, look at them, and mend them. A job is all segments of one manifestation."
EPILOG: Final = """examples:
  python -m app.jobs create M-1234
  python -m app.jobs status 550e8400-e29b-41d4-a716-446655440000 --watch
  python -m app.jobs list --status FAILED

Settings come from the environment or .env; env.example explains each."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    options = parse(arguments)
    setup_logging("WARNING", "text")
    return run(options)


def run(options: argparse.Namespace) -> int:
    """Run what was parsed; its exit code."""
    parts = LazyParts()
    try:
        code: int = options.command(parts, options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader has seen enough (``show JOB | head``); nothing may be flushed into the pipe at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ConfigurationError as error:
        return _fail(str(error), EXIT_CONFIGURATION)
    except ProcessorError as error:
        return _fail(parts.explain(error), EXIT_FAILED)
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_INTERRUPTED)
    finally:
        parts.close()


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"{message[:1].upper()}{message[1:]}\n")
    return code


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; `command` is the function to call. Exits with 2 on a usage error."""
    parser = argparse.ArgumentParser(
        prog="python -m app.jobs",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    create = subparsers.add_parser("create", help="make a job from a manifestation's segments and send its messages")
    create.add_argument("manifestation_id", metavar="MANIFESTATION", type=_manifestation_id)
    create.set_defaults(command=commands.create)

    resume = subparsers.add_parser("resume", help="send the messages of a job that `create` could not send")
    status = subparsers.add_parser("status", help="show one job")
    status.add_argument("--watch", action="store_true", help="until it ends; exit code 1 if it ends as FAILED")
    show = subparsers.add_parser("show", help="print a job's segments with their results, one JSON object a line")
    retry = subparsers.add_parser("retry", help="do a job's FAILED segments again")
    cancel = subparsers.add_parser("cancel", help="end a job: its unfinished segments are FAILED")
    for subparser, command in (
        (resume, commands.resume),
        (status, commands.status),
        (show, commands.show),
        (retry, commands.retry),
        (cancel, commands.cancel),
    ):
        subparser.add_argument("job_id", metavar="JOB", type=_job_id)
        subparser.set_defaults(command=command)

    listing = subparsers.add_parser("list", help="show the newest jobs")
    listing.add_argument("--status", choices=JOB_STATUSES, metavar="S", help=f"only these: {', '.join(JOB_STATUSES)}")
    listing.add_argument("--limit", type=_positive, default=20, metavar="N", help="at most N (default: 20)")
    listing.set_defaults(command=commands.list_jobs)

    reconcile = subparsers.add_parser(
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
    reconcile.set_defaults(command=commands.reconcile)
    return parser.parse_args(arguments)


def _job_id(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        example = "550e8400-e29b-41d4-a716-446655440000"
        raise argparse.ArgumentTypeError(f"JOB must be a UUID such as {example}, not {text!r:.60}") from None


def _manifestation_id(text: str) -> str:
    try:
        check_id(text)
    except PermanentError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:10]) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 1000000, not {text!r:.60}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 1e9:
        raise argparse.ArgumentTypeError(f"must be a number of seconds from 0 on, not {text!r:.60}")
    return seconds


if __name__ == "__main__":
    sys.exit(main())

"""The command line of ``python -m app.jobs``: one command is run, and its exit code given.

Invariant: what goes wrong is told in one message without a traceback.

Exit codes: 0 done; 1 it could not be done, or not all of it; 2 the settings or what was typed are wrong;
130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from app.errors import ConfigurationError, ProcessorError
from app.jobs.arguments import EXIT_CONFIGURATION, EXIT_FAILED, EXIT_INTERRUPTED
from app.jobs.arguments import parse as parse
from app.logs import setup_logging


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    try:
        options = parse(arguments)
        setup_logging("WARNING", "text")
        return run(options)
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_INTERRUPTED)


def run(options: argparse.Namespace) -> int:
    """Run what was parsed; its exit code."""
    from app.jobs.commands import COMMANDS
    from app.jobs.wiring import LazyParts

    parts = LazyParts()
    try:
        code = COMMANDS[options.command](parts, options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader has seen enough (``show JOB | head``).
        _drop_output()
        return 0
    except OSError as error:
        _drop_output()
        return _fail(f"what was asked for could not be written: {error.strerror or error}", EXIT_FAILED)
    except ConfigurationError as error:
        return _fail(str(error), EXIT_CONFIGURATION)
    except ProcessorError as error:
        return _fail(parts.explain(error), EXIT_FAILED)
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_INTERRUPTED)
    finally:
        parts.close()


def _drop_output() -> None:
    """Nothing may be flushed into it at exit either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"{message[:1].upper()}{message[1:]}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())

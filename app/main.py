"""The door: ``python -m app.main``, and `SimpleConsumer` for code that builds the consumer itself.

Invariant: nothing is built or connected to before the start; see `app.worker.wiring` for what is built then. The
command imports only what its first segment needs.

Exit codes: see `EPILOG`.
"""

import gc
import signal

if __name__ == "__main__":
    gc.disable()  # what the imports make stays: looking through it for garbage again and again is a sixth of the start
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # While the imports last, Ctrl-C ends the process as SIGTERM does, without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import ctypes
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from app.config import load_settings
from app.errors import ConfigurationError
from app.threads.stopping import Signals, Stop
from app.worker.loop import EXIT_OK
from app.worker.wiring import Wanted, build_segment_loop

if TYPE_CHECKING:
    from app.worker.consumer import SimpleConsumer as SimpleConsumer

EXIT_CONFIGURATION: Final = 2
M_ARENA_MAX: Final = -8
"""See mallopt(3)."""
HEAPS: Final = 1
MADE_AT_THE_START: Final = 100_000
"""Objects, before garbage is looked for while the worker is built: more than that takes, but not than hours of waiting
for a service would."""

DESCRIPTION: Final = """Find the related segments of every segment whose message is on the input queue.
Runs until SIGTERM or Ctrl-C; run as many as you like."""
EPILOG: Final = """settings:
  from the environment or .env; env.example explains each

exit codes:
  0        stopped as asked
  2        the settings, queues or credentials are wrong, or what was typed
  3        a thread hung: restart it
  128 + n  a second signal n ended it at once"""


def __getattr__(name: str) -> Any:
    """`SimpleConsumer`, when it is asked for: its library brings all of boto3, which the command does without."""
    if name != "SimpleConsumer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from app.worker.consumer import SimpleConsumer

    return SimpleConsumer


def main(arguments: Sequence[str] = ()) -> int:
    """Run the worker until it is told to stop; its exit code. Exits by itself after ``--help`` and on a usage error."""
    argparse.ArgumentParser(
        prog="python -m app.main",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(arguments)
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(MADE_AT_THE_START)
    gc.enable()
    _share_the_heap()
    stop = Stop()
    try:
        with Signals(stop.set):
            loop = build_segment_loop(Wanted(queue_url=load_settings().sqs_queue_url), stop)
            if stop.is_set():
                return EXIT_OK
            gc.freeze()
            gc.set_threshold(*usual)
            return loop.run()
    except ConfigurationError as error:
        print(error, file=sys.stderr)  # noqa: T201  (there may be no log yet)
        return EXIT_CONFIGURATION


def _share_the_heap() -> None:
    """Let threads share one heap, where glibc gives each its own and keeps what they have freed: a twentieth less."""
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, HEAPS)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    logging.shutdown()
    sys.stdout.flush()
    # Lanes may still be parked in a poll; the interpreter would wait for, or trip over, what they are doing.
    os._exit(code)

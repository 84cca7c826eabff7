"""Empties the queue of SQS_QUEUE_URL: ``python purge_sqs.py [--yes] [--queue URL]``.

Invariant: nothing is deleted before a person has agreed or a script has said ``--yes``. Exit codes: 0 emptied;
1 not emptied; 2 the settings or what was typed are wrong; 130 interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from app.config import AWS, aws_access, load_settings
from app.errors import ConfigurationError, ProcessorError
from app.sqs.queue import Queue, make_queue

EXIT_FAILED: Final = 1
EXIT_CONFIGURATION: Final = 2
EXIT_INTERRUPTED: Final = 130
PURGE_IN_PROGRESS: Final = "PurgeQueueInProgress"
"""https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_PurgeQueue.html"""
NO_TERMINAL: Final = "Nothing was deleted: there is no terminal to ask at. Say --yes to empty the queue {name} ({url})."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = _parse(arguments)
    try:
        queue = _open(options.queue)
        messages = queue.facts().messages
        if not options.yes and not (sys.stdin.isatty() and sys.stdout.isatty()):
            return _fail(NO_TERMINAL.format(name=queue.name, url=queue.url), EXIT_CONFIGURATION)
        if not options.yes and not _agreed(queue, messages):
            return _fail("Nothing was deleted.", EXIT_FAILED)
        queue.purge()
    except ConfigurationError as error:
        return _fail(str(error), EXIT_CONFIGURATION)
    except ProcessorError as error:
        return _fail(_explain(error), EXIT_FAILED)
    except (KeyboardInterrupt, EOFError):
        return _fail("\nNothing was deleted.", EXIT_INTERRUPTED)
    print(f"Emptied the queue {queue.name}: it held {_count(messages)} ({queue.url}).")
    print("AWS may take up to 60 s for it; messages sent meanwhile may be deleted, too.")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python purge_sqs.py",
        description="Delete every message of the input queue. Segments whose messages are deleted stay unfinished until"
        " a worker's sweep or `python -m app.jobs reconcile` sends them again.",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask (for scripts)")
    parser.add_argument("--queue", metavar="URL", help="another queue than the one of SQS_QUEUE_URL")
    return parser.parse_args(arguments)


def _open(url: str | None) -> Queue:
    if url is None:
        settings = load_settings(*AWS, "SQS_QUEUE_URL")
        return make_queue(settings.sqs_queue_url, **aws_access(settings))
    if not url.startswith(("https://", "http://")):
        raise ConfigurationError("--queue must be the URL of a queue, https://...")
    return make_queue(url, **aws_access(load_settings(*AWS)))


def _agreed(queue: Queue, messages: int) -> bool:
    """Whether the person at the terminal says yes."""
    print(f"Queue:    {queue.name} ({queue.url})")
    print(f"Messages: {_count(messages)}, all that are there will be deleted")
    return input("Empty it? [y/N] ").strip().lower() in ("y", "yes")


def _explain(error: ProcessorError) -> str:
    if PURGE_IN_PROGRESS in str(error):
        return "Nothing was deleted now: AWS allows one purge of a queue in 60 s. Wait a minute and run it again."
    return str(error)


def _fail(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


def _count(messages: int) -> str:
    return f"about {messages} message{'' if messages == 1 else 's'}" if messages else "no messages"


if __name__ == "__main__":
    sys.exit(main())

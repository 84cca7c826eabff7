"""``python -m app.jobs dead-letters``: which messages were given up and why, redriven or dropped.

Invariant: a letter is redriven before it is deleted, so that a crash in between makes a duplicate, which does no harm,
and loses nothing. All of them are those that were there at the start: what fails again meanwhile is left for next time.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from app.errors import ConfigurationError, ProcessorError
from app.jobs.as_json import dead_letter_fields, line_of
from app.jobs.printing import moment, say, tell
from app.jobs.wiring import DEAD_LETTERS, SEGMENTS_QUEUE, LazyParts, require
from app.logs import one_line
from app.sqs.dead_letters import DeadLetter, Hand, look
from app.sqs.queue import Queue

CLOCK_SLACK_MS: Final = 5_000
"""SQS tells its time to the second, and a busy server tells one that has passed a while ago."""
NO_REASON: Final = "moved by the redrive policy, which tells no reason"
HEADER: Final = "message_id\tsegment_id\tjob_id\treason\treceives\tsince"


@dataclass(slots=True)
class Moved:
    """What became of the letters that were asked for."""

    done: int = 0
    left: dict[str, str] = field(default_factory=dict)
    """Message id to the reason why nothing, or not all, was done."""


type Act = Callable[[Hand, Sequence[DeadLetter]], dict[str, str]]
"""Does it to letters in hand; message id to reason of those that are left."""


def run(parts: LazyParts, options: argparse.Namespace) -> int:
    """The command; its exit code."""
    if options.action == "list":
        return _list(parts.dead_letters, options)
    if options.action == "drop":
        return _move(parts.dead_letters, options, "dropped", lambda hand, letters: hand.delete(letters))
    require(*SEGMENTS_QUEUE, *DEAD_LETTERS)
    return _move(parts.dead_letters, options, "redriven", lambda hand, letters: redrive(hand, letters, parts.queue))


def _list(queue: Queue, options: argparse.Namespace) -> int:
    shown = 0
    is_read_by_a_person = sys.stdout.isatty() and not options.json
    if not is_read_by_a_person and not options.json:
        tell(HEADER)
    with look(queue) as hand:
        for letter in _at_most(options.limit, hand):
            shown += 1
            if options.json:
                tell(line_of(dead_letter_fields(letter)))
            else:
                tell(_describe(letter) if is_read_by_a_person else _columns(letter))
    if is_read_by_a_person and not shown:
        tell(f"There are no dead letters on {queue.name}, unless somebody else is looking at them.")
    if shown == options.limit:
        say(f"Only {shown} were asked for; about {queue.facts().messages} are on the queue {queue.name}.")
    return 0


def _at_most(limit: int, hand: Hand) -> Iterator[DeadLetter]:
    for letters in hand.receive_all():
        yield from letters[:limit]
        limit -= len(letters)
        if limit <= 0:
            return


def _describe(letter: DeadLetter) -> str:
    times = "once" if letter.receives == 1 else f"{letter.receives} times"
    segment, job = one_line(letter.segment_id or "(unknown)"), letter.job_id or "(unknown)"
    return (
        f"{letter.message_id}\n  segment {segment} of job {job}\n  {one_line(letter.reason or NO_REASON)}\n"
        f"  since {moment(letter.since)}, received {times}"
    )


def _columns(letter: DeadLetter) -> str:
    fields = (letter.message_id, letter.segment_id, letter.job_id, letter.reason, str(letter.receives))
    return "\t".join([*(one_line(each or "") for each in fields), letter.since.isoformat()])


def _move(queue: Queue, options: argparse.Namespace, done: str, act: Act) -> int:
    """Do it to those that were asked for; 1 when not to all of them."""
    facts = queue.facts()
    if options.all and not options.yes and not _agreed(queue, facts.messages, done):
        return 1
    moved = Moved()
    try:
        with look(queue) as hand:
            if options.all:
                _move_all(hand, queue.now_ms() + CLOCK_SLACK_MS, act, moved)
            else:
                _move_these(hand, dict.fromkeys(options.message_ids), act, moved)
    except (ProcessorError, KeyboardInterrupt):
        say(f"{_letters(moved.done)} {done} before that; the others are where they were.")
        raise
    tell(f"{_letters(moved.done)} {done}.")
    for message_id, reason in moved.left.items():
        say(f"  not {done}: {one_line(message_id)}: {one_line(reason)}")
    return 1 if moved.left else 0


def _move_all(hand: Hand, until_ms: int, act: Act, moved: Moved) -> None:
    for received in hand.receive_all():
        letters = [letter for letter in received if letter.delivery.sent_at_ms <= until_ms]
        if not letters:
            return
        _act(hand, letters, act, moved)


def _move_these(hand: Hand, wanted: dict[str, None], act: Act, moved: Moved) -> None:
    for received in hand.receive_all():
        letters = [letter for letter in received if letter.message_id in wanted]
        for letter in letters:
            del wanted[letter.message_id]
        _act(hand, letters, act, moved)
        if not wanted:
            return
    moved.left |= dict.fromkeys(wanted, "there is no such message, or somebody else has it in hand")


def _act(hand: Hand, letters: Sequence[DeadLetter], act: Act, moved: Moved) -> None:
    if letters:
        left = act(hand, letters)
        moved.left |= left
        moved.done += len(letters) - len(left)


def redrive(hand: Hand, letters: Sequence[DeadLetter], queue: Queue) -> dict[str, str]:
    """Send them to the input queue, then delete them; message id to reason of those that are left.

    A message that no worker can read would only come back, so it is left. Raises `ProcessorError`.
    """
    left = {letter.message_id: f"no worker can read it: {letter.fault}" for letter in letters if letter.fault}
    return left | hand.redrive([letter for letter in letters if letter.message_id not in left], queue)


def _agreed(queue: Queue, messages: int, done: str) -> bool:
    """Whether the person at the terminal says yes. Raises `ConfigurationError` without one."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigurationError(f"nothing was {done}: there is no terminal to ask at; say --yes for {queue.name}")
    sys.stdout.write(f"About {_letters(messages)} on {queue.name} will be {done}. Go on? [y/N] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    say(f"Nothing was {done}.")
    return False


def _letters(count: int) -> str:
    return f"{count} dead letter{'' if count == 1 else 's'}"

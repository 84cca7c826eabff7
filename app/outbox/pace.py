"""How fast the messages of unfinished segments are sent again: as fast as workers take them off the queue.

Invariant: more than `FEWEST_RESENT` go out at once only while the queue holds at most half as many. So a backlog, whose
messages are old but not lost, is not doubled; and of what is lost a worker never waits for more.
"""

from typing import Final

FEWEST_RESENT: Final = 100
MOST_RESENT: Final = 1_000
"""In one sweep, which takes a second or two of calls, ten messages each; relays wait for no longer than that."""


class Pace:
    """How many messages the next sweep may send again, and whether it may come before its time."""

    def __init__(self) -> None:
        self.limit = FEWEST_RESENT
        self.has_more = False

    def note(self, resent: int) -> None:
        """A sweep has sent so many; it has left some for the next one when that is about its limit.

        Not only when it is just that: a few of the rows that it chose may be in others' hands by then.
        """
        self.has_more = 2 * resent > self.limit
        if not self.has_more:
            self.limit = FEWEST_RESENT

    def speed_up(self, waiting: int) -> bool:
        """Whether the next sweep may come now, since only `waiting` messages are left; it may send twice as many."""
        if not self.has_more or 2 * waiting > self.limit:
            return False
        self.limit = min(2 * self.limit, MOST_RESENT)
        return True

    def slow_down(self) -> None:
        """The next sweep's time has come while the queue was not worked off: a backlog stands."""
        self.limit = FEWEST_RESENT

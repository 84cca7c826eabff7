"""A clock that jumps from event to event, and what processes of a simulation queue for. Pure.

Invariant: a process is a generator that yields how long it waits, or a resource, which it has from then on until it
releases it; who came first has it first. Any unit of time, the same everywhere.
"""

from collections import deque
from collections.abc import Callable, Generator
from heapq import heappop, heappush
from itertools import count

type Process = Generator["float | Resource", None, None]


class Clock:
    """Time, and what is going to happen."""

    def __init__(self) -> None:
        self.now = 0.0
        self._numbers = count()  # of what happens at the same time, the first that was asked for comes first
        self._events: list[tuple[float, int, Process]] = []

    def after(self, delay: float, process: Process) -> None:
        """Let it go on then."""
        heappush(self._events, (self.now + delay, next(self._numbers), process))

    def run(self, is_over: Callable[[], bool]) -> None:
        """Until `is_over`; IndexError when nothing is left to happen."""
        while not is_over():
            self.now, _, process = heappop(self._events)
            self._go_on(process)

    def _go_on(self, process: Process) -> None:
        """Until it has to wait; a `for` that is left does not end the generator."""
        for wish in process:
            if not isinstance(wish, Resource):
                self.after(wish, process)
                return
            if not wish.take(process):
                return


class Resource:
    """So many of something: processors, a row's lock."""

    def __init__(self, clock: Clock, capacity: int = 1) -> None:
        self._capacity = capacity
        self._clock = clock
        self._free = capacity
        self._waiting: deque[Process] = deque()
        self._used = 0.0
        self._since = 0.0

    @property
    def used(self) -> float:
        """Time for which all of it was taken since the start; where a part was, that part of the time."""
        return self._used + (1 - self._free / self._capacity) * (self._clock.now - self._since)

    def take(self, process: Process) -> bool:
        """Whether the process has one now; else it waits for its turn."""
        if not self._free:
            self._waiting.append(process)
            return False
        self._note(-1)
        return True

    def release(self) -> None:
        """Give one to whoever waits the longest."""
        if self._waiting:
            self._clock.after(0.0, self._waiting.popleft())
        else:
            self._note(+1)

    def _note(self, freed: int) -> None:
        self._used, self._since = self.used, self._clock.now
        self._free += freed

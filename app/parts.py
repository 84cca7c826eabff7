"""What a consumer works with, as `app.main` puts it together.

Invariant: the consumer knows its service and its helpers by these protocols alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from app.acknowledge import Acknowledger
from app.heartbeat import Heartbeat
from app.outage import Gate
from app.outcomes import Outcome
from app.ports import Claimed, SegmentRequest
from app.progress import Progress
from app.sqs import Queue
from app.stopping import Stop

STALL_SECONDS: Final = 600.0
"""A lane or helper that has not come further for so long hangs; every wait inside it is bounded well below."""


class Service(Protocol):
    """What the consumer hands its messages to; see `app.tasks.TaskService`."""

    def process(self, requests: Sequence[SegmentRequest], age_seconds: float = 0.0) -> list[Outcome]:
        """An outcome a request."""
        ...

    def give_back(self, claims: Sequence[Claimed]) -> frozenset[str]:
        """Return segments that will not be worked on; the ids of those tasks that were still ours."""
        ...

    def catch_up(self) -> None:
        """Write what could not be written yet. Raises `ProcessorError`."""
        ...


class Helper(Protocol):
    """A thread beside the lanes. It asks `stop` at least once a round, which shows that it does not hang."""

    def run(self, stop: Stop) -> None:
        """Work until `stop`."""
        ...


@dataclass(slots=True)
class Parts:
    """Built by `app.main`, the composition root."""

    queue: Queue
    acknowledger: Acknowledger
    heartbeat: Heartbeat
    gate: Gate
    service: Service | None
    """None: every message goes to the subclass's `handle_message`."""
    helpers: Sequence[tuple[str, Helper]] = ()
    is_idle: Callable[[], bool] = lambda: True
    """Whether the helpers have nothing left to do."""
    close: Callable[[], None] = lambda: None
    lanes: int = 1
    grace_seconds: float = 25.0
    stall_seconds: float = STALL_SECONDS
    progress: Progress = field(default_factory=Progress)
    """Of every lane and helper; `mark` it wherever a batch has come further."""

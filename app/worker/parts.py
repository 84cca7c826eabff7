"""What a loop is given: its parts, and the numbers that it runs by.

Invariant: whole and frozen. `app.worker.wiring` builds them; the settings' defaults are in `app.config`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from app.core.meter import NO_METER, Meter
from app.sqs.acknowledge import Acknowledger
from app.sqs.queue import Queue
from app.threads.gate import Gate
from app.threads.progress import Progress
from app.threads.stopping import Stop
from app.worker.handling import Handler
from app.worker.in_flight import InFlight
from app.worker.prober import Prober
from app.worker.tally import Tally

STALL_SECONDS: Final = 600.0
"""A lane or helper that has not come further for so long hangs; every wait inside it is bounded well below."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`batch_size`: messages a receive; a batch takes up to `receives_a_batch` of these. `lanes`: batches in flight at
    the same time. `grace_seconds`: from the wish to stop until the end."""

    batch_size: int = 10
    receives_a_batch: int = 1
    wait_time_seconds: int = 20
    visibility_timeout_seconds: int = 60
    polling_wait_time_ms: int = 50
    lanes: int = 1
    grace_seconds: float = 25.0
    stall_seconds: float = STALL_SECONDS


class Helper(Protocol):
    """A thread beside the lanes. It asks `stop` at least once a round, which shows that it does not hang."""

    def run(self, stop: Stop) -> None:
        """Work until `stop`."""
        ...


def _nothing() -> None: ...


def _yes() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Parts:
    """What a loop works with; built whole by `app.worker.wiring`."""

    queue: Queue
    acknowledger: Acknowledger
    in_flight: InFlight
    gate: Gate
    prober: Prober
    handler: Handler
    progress: Progress
    """Of every lane and helper; `mark` it wherever a batch has come further."""
    helpers: Mapping[str, Helper]
    tally: Tally = field(default_factory=Tally)
    meter: Meter = NO_METER
    is_idle: Callable[[], bool] = _yes
    """Whether the helpers have nothing left to do."""
    close: Callable[[], None] = _nothing

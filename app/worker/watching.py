"""What a worker knows of itself, and the door through which others watch it: metrics and health over HTTP.

Invariant: without a port nothing is counted, nothing listens and no library for it is imported.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Self

from app.core.meter import NO_METER, Meter
from app.threads.gate import Gate
from app.threads.progress import Progress
from app.threads.stopping import Stop
from app.worker.counts import Counts
from app.worker.health import Checkup
from app.worker.in_flight import InFlight
from app.worker.lookout import Lookout
from app.worker.reporter import LOOK_SECONDS, Reporter
from app.worker.tally import Tally


@dataclass(frozen=True, slots=True)
class SelfKnowledge:
    """`port`: to be watched on; None: not at all, and then there are no `counts`."""

    host: str
    port: int | None
    counts: Counts | None
    progress: Progress
    gate: Gate
    in_flight: InFlight
    tally: Tally
    checkup: Checkup

    @classmethod
    def begin(
        cls, host: str, port: int | None, stop: Stop, dependencies: Collection[str], *, stall_seconds: float
    ) -> Self:
        """Of a worker that starts now and can't work without `dependencies`. Nothing listens yet."""
        progress, gate = Progress(), Gate()
        checkup = Checkup(gate, progress, stop, dependencies, stall_seconds=stall_seconds)
        counts = None if port is None else Counts()
        return cls(host, port, counts, progress, gate, InFlight(), Tally(), checkup)

    @property
    def meter(self) -> Meter:
        """What the work is to be told to."""
        return self.counts or NO_METER

    def reporter(self, lookout: Lookout) -> Reporter:
        """Says how it goes, and keeps what is served fresh."""
        look_seconds = None if self.counts is None else LOOK_SECONDS
        return Reporter(self.tally, self.gate, lookout.look, look_seconds=look_seconds)

    def serve(self, lookout: Lookout, is_cache_up: Callable[[], bool | None] = lambda: None) -> Callable[[], None]:
        """Answer from now on, if there is a port; the function that ends it.

        `is_cache_up` gives None when there is no shared cache. Raises `ConfigurationError` that names METRICS_PORT when
        nobody can listen there.
        """
        if self.port is None or self.counts is None:
            return lambda: None
        from app.worker.exposition import Exposition, Watched  # imports the vendor's library
        from app.worker.watch_server import WatchServer, say_health

        watched = Watched(self.counts, self.tally, self.in_flight, self.checkup, lookout, is_cache_up)
        routes = {
            "/metrics": Exposition(watched).answer,
            "/health/live": say_health(self.checkup.live),
            "/health/ready": say_health(self.checkup.ready),
        }
        server = WatchServer(self.host, self.port, routes)
        server.start()
        return server.close

"""What the worker counts, in the words of Prometheus. Imported only where METRICS_PORT is set.

Invariant: a scrape reads memory and asks no service; a gauge that nobody could tell lately is left out, never made up.
docs/metrics.md lists what is served: a test compares them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from app.core.outcomes import Dead, Done, Hide, Leave
from app.waiting import say_what_waits
from app.worker.counts import BUCKETS_SECONDS, ENDINGS, LOST, STEPS, TIERS, Counts, Histogram
from app.worker.health import Checkup
from app.worker.in_flight import InFlight
from app.worker.lookout import Lookout
from app.worker.tally import Tally
from app.worker.watch_server import Answer

CACHE: Final = "Dragonfly"
MESSAGES: Final = {Done: "done", Hide: "hidden", Dead: "dead_lettered", Leave: "left"}


@dataclass(frozen=True, slots=True)
class Watched:
    """What is read at each scrape. `is_cache_up`: None when there is no shared cache."""

    counts: Counts
    tally: Tally
    in_flight: InFlight
    checkup: Checkup
    lookout: Lookout
    is_cache_up: Callable[[], bool | None] = lambda: None


class Exposition(Collector):
    """One for each worker, with a registry of its own: nothing global is touched."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def answer(self) -> Answer:
        """The text of a scrape."""
        return Answer(200, CONTENT_TYPE_LATEST, generate_latest(self._registry))

    def describe(self) -> Sequence[Metric]:
        """Nothing before the first scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every metric of ours, in the order of docs/metrics.md."""
        yield from self._work()
        yield from self._services()
        yield from self._in_hand()
        outlook = self._watched.lookout.latest
        yield from say_what_waits(outlook.backlog, outlook.dead_letters, outlook.lag)

    def _work(self) -> Iterator[Metric]:
        counted = self._watched.counts.read()
        segments = CounterMetricFamily("srp_segments", "Segments by how their run ended.", labels=["outcome"])
        for outcome in (*ENDINGS.values(), LOST):
            segments.add_metric([outcome], counted.segments.get(outcome, 0))
        yield segments
        messages = CounterMetricFamily("srp_messages", "Messages by what became of them.", labels=["outcome"])
        tallied = self._watched.tally.counts()
        for kind, outcome in MESSAGES.items():
            messages.add_metric([outcome], tallied[kind])
        yield messages
        steps = HistogramMetricFamily("srp_step_seconds", "Seconds that a batch took for a step.", labels=["step"])
        for step in STEPS:
            steps.add_metric([step], _buckets(counted.steps[step]), counted.steps[step].total_seconds)
        yield steps
        pages = CounterMetricFamily("srp_pages", "Pages by the tier that they were found in.", labels=["tier"])
        for tier in TIERS:
            pages.add_metric([tier], counted.pages.get(tier, 0))
        yield pages
        calls = CounterMetricFamily("srp_calls", "Calls of a service.", labels=["service", "result"])
        for service in self._all_services():
            for worked, result in ((True, "ok"), (False, "failed")):
                calls.add_metric([service, result], counted.calls.get((service, worked), 0))
        yield calls

    def _services(self) -> Iterator[Metric]:
        checkup = self._watched.checkup
        down = checkup.down_seconds()
        up = GaugeMetricFamily(
            "srp_dependency_up", "1 while the service works, as far as is known.", labels=["service"]
        )
        for service in checkup.dependencies:
            up.add_metric([service], service not in down)
        if (is_cache_up := self._watched.is_cache_up()) is not None:
            up.add_metric([CACHE], is_cache_up)
        yield up
        seconds = GaugeMetricFamily(
            "srp_dependency_down_seconds",
            "For how long the service has been down; 0 while it works.",
            labels=["service"],
        )
        for service in checkup.dependencies:
            seconds.add_metric([service], down.get(service, 0.0))
        yield seconds
        yield GaugeMetricFamily("srp_receiving_paused", "1 while a service that is needed is down.", bool(down))

    def _in_hand(self) -> Iterator[Metric]:
        deliveries, claims = self._watched.in_flight.snapshot()
        yield GaugeMetricFamily("srp_messages_in_flight", "Messages in hand without an outcome.", len(deliveries))
        yield GaugeMetricFamily("srp_claims_in_flight", "Segments that are being worked on.", len(claims))

    def _all_services(self) -> tuple[str, ...]:
        has_cache = self._watched.is_cache_up() is not None
        return (*self._watched.checkup.dependencies, *([CACHE] if has_cache else []))


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Added up, as Prometheus wants them."""
    bounds = [*(str(float(bound)) for bound in BUCKETS_SECONDS), "+Inf"]
    return list(zip(bounds, accumulate(histogram.counts), strict=True))

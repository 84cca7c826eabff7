"""``GET /metrics``: what the HTTP side tells Prometheus.

Invariant: a service that is down costs its own figures and no others; without a worker, too, the backlog is told.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.errors import ProcessorError
from app.waiting import say_what_waits
from app.web.api_health import OK, Readiness, get_readiness
from app.web.counting import Requests, get_requests
from app.web.parts import Services, WebParts
from app.web.problems import may_answer

router: Final = APIRouter(tags=["metrics"])

EXAMPLE: Final = """# HELP srp_backlog_messages Messages on the input queue that wait to be received.
# TYPE srp_backlog_messages gauge
srp_backlog_messages 42.0
"""
ANSWERS: Final = {**may_answer(), 200: {"content": {"text/plain": {"example": EXAMPLE}}}}


@router.get("/metrics", response_class=Response, responses=ANSWERS)
def read_metrics(
    parts: Services,
    readiness: Annotated[Readiness, Depends(get_readiness)],
    requests: Annotated[Requests, Depends(get_requests)],
) -> Response:
    """What waits, which service answers, and what this process was asked, in Prometheus' text format."""
    metrics = [*requests.collect(), *_services(found := readiness.look(parts)), *_waiting(parts, found)]
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Told(metrics))
    ProcessCollector(registry=registry)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Told(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


def _services(found: Mapping[str, str]) -> Iterator[Metric]:
    up = GaugeMetricFamily("srp_dependency_up", "1 while the service works, as far as is known.", labels=["service"])
    for service, state in found.items():
        up.add_metric([service], state == OK)
    yield up


def _waiting(parts: WebParts, found: Mapping[str, str]) -> Iterator[Metric]:
    def ask[T](service: str, question: Callable[[], T]) -> T | None:
        with suppress(ProcessorError):
            return question() if found.get(service) == OK else None
        return None

    def count_dead() -> int | None:
        return dead.facts().messages if (dead := parts.known_dead_letters) else None

    yield from say_what_waits(
        ask("SQS", lambda: parts.queue.facts().waiting), ask("SQS", count_dead), ask("PostgreSQL", parts.lag.read)
    )

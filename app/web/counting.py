"""Counts what this process answers, in the words of Prometheus.

Invariant: labels come from the routes and from HTTP, never from what a client makes up, so their number is bounded.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from threading import Lock
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.web.problems import METHODS

NO_ROUTE: Final = "none"
OTHER_METHOD: Final = "other"


class Requests(Collector):
    """Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._answers: Counter[tuple[str, str, str]] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def add(self, method: str, route: str, status: int, seconds: float) -> None:
        """One more answer; `route`: its pattern, such as /jobs/{job_id}."""
        with self._lock:
            self._answers[method if method in METHODS else OTHER_METHOD, route, str(status)] += 1
            self._seconds[route] += seconds

    def collect(self) -> Iterator[Metric]:
        """As it is now."""
        with self._lock:
            answers, seconds = dict(self._answers), dict(self._seconds)
        requests = CounterMetricFamily(
            "srp_http_requests", "Requests by their answer's status.", labels=["method", "route", "status"]
        )
        count_by_route: Counter[str] = Counter()
        for labels, count in answers.items():
            requests.add_metric(labels, count)
            count_by_route[labels[1]] += count
        yield requests
        took = SummaryMetricFamily("srp_http_request_seconds", "Seconds to the end of the answer.", labels=["route"])
        for route, count in count_by_route.items():
            took.add_metric([route], count, seconds[route])
        yield took


class Counted:
    """Middleware: tells `requests` of each request when its answer has ended, or nobody wants it any more."""

    def __init__(self, app: ASGIApp, requests: Requests) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = 500, time.perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            self._requests.add(scope["method"], _route_of(scope), status, time.perf_counter() - began)


def _route_of(scope: Scope) -> str:
    """The pattern that the path fits; the router leaves its choice in the scope."""
    return getattr(scope.get("route"), "path_format", NO_ROUTE)


_requests: Final = Requests()


def get_requests() -> Requests:
    """The process's one."""
    return _requests

"""Traces, when OpenTelemetry is configured: a span a batch with a span a step, and contexts that travel on.

Invariant: without OpenTelemetry's own variables nothing of it is imported and nothing is wrapped. What a message
carries in its `traceparent` attribute goes on to the completion message of its job, unless the worker dies in between:
then the completion is sent without it. A `traceparent` that makes no sense spoils no message.

A batch holds messages of several traces. Its span continues the trace of its messages when they are all of one, and is
linked to each of them when they are not. A completion continues its batch's span in the one case, and in the other the
message that it came from.
"""

import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from app.core.endings import Announcement, Ending
from app.core.meter import Meter, Service, Step, Tier
from app.core.ports import Announcer
from app.core.segments import Claimed
from app.errors import ConfigurationError
from app.sqs.delivery import TRACEPARENT, Delivery
from app.threads.stopping import Stop
from app.worker.handling import Handled, Handler

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, SpanContext, Tracer

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
EXPORTER: Final = "OTEL_TRACES_EXPORTER"
EXPORTERS: Final = ("otlp", "console")
SERVICE_NAME: Final = "segment-relationship-processor"


def open_tracing(meter: Meter, variables: Mapping[str, str] = os.environ) -> "Tracing | None":
    """Tracing as OpenTelemetry's variables ask for it; None when they don't. `meter` goes on being told everything.

    Raises `ConfigurationError` for an exporter that is not known, or when OpenTelemetry is not installed.
    """
    is_wanted = variables.get(EXPORTER) or any(variables.get(name) for name in ENDPOINTS)
    exporter = variables.get(EXPORTER) or "otlp"
    if not is_wanted or exporter == "none" or variables.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if exporter not in EXPORTERS:
        raise ConfigurationError(f"{EXPORTER} must be one of {', '.join(EXPORTERS)} or none")
    try:
        return Tracing(_open_provider(exporter, variables), meter)
    except ImportError as error:
        raise ConfigurationError(
            f"OpenTelemetry is asked for ({EXPORTER}, {ENDPOINTS[0]}) and {error.name} is not installed:"
            " pip install -r requirements-otel.txt"
        ) from error


def _open_provider(exporter: str, variables: Mapping[str, str]) -> "TracerProvider":
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

    sink: SpanExporter
    if exporter == "console":
        sink = ConsoleSpanExporter(formatter=lambda span: span.to_json(indent=None) + "\n")
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        sink = OTLPSpanExporter()
    name = {} if variables.get("OTEL_SERVICE_NAME") else {"service.name": SERVICE_NAME}
    provider = TracerProvider(resource=Resource.create(name))
    provider.add_span_processor(BatchSpanProcessor(sink))
    return provider


class Tracing(Meter):
    """Told of the work as a `Meter` is; makes spans of it. Safe to share between threads."""

    def __init__(self, provider: "TracerProvider", meter: Meter) -> None:
        self._provider = provider
        self._tracer: Tracer = provider.get_tracer(SERVICE_NAME)
        self._meter = meter
        self._batch = threading.local()

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()

    def step(self, step: Step) -> AbstractContextManager[None]:
        """See `Meter`; a span inside the batch's."""
        return self._both(self._meter.step(step), step)

    def call(self, service: Service) -> AbstractContextManager[None]:
        """See `Meter`; no span: there are too many."""
        return self._meter.call(service)

    def pages(self, tier: Tier, number: int) -> None:
        """See `Meter`."""
        self._meter.pages(tier, number)

    def settled(self, endings: Sequence[Ending], task_ids: Collection[str]) -> None:
        """See `Meter`."""
        self._meter.settled(endings, task_ids)

    def lost(self, number: int) -> None:
        """See `Meter`."""
        self._meter.lost(number)

    @contextmanager
    def batch(self, deliveries: Sequence[Delivery]) -> Iterator[None]:
        """These messages are dealt with inside the context, by the calling thread."""
        from opentelemetry import trace

        parents = [_read_context(delivery) for delivery in deliveries]
        known = {parent.trace_id: parent for parent in parents if parent is not None}
        continues = len(known) == 1 and None not in parents
        context = trace.set_span_in_context(trace.NonRecordingSpan(next(iter(known.values())))) if continues else None
        links = [trace.Link(parent) for parent in parents if parent is not None]
        ids = [delivery.read_ids() for delivery in deliveries]
        jobs = {
            its["job_id"]: delivery.traceparent
            for delivery, parent, its in zip(deliveries, parents, ids, strict=True)
            if parent is not None and "job_id" in its
        }
        with self._tracer.start_as_current_span(
            "segments",
            context=context,
            kind=trace.SpanKind.CONSUMER,
            links=links,
            attributes={
                "messaging.system": "aws_sqs",
                "messaging.batch.message_count": len(deliveries),
                "srp.job_ids": sorted({its["job_id"] for its in ids if "job_id" in its}),
                "srp.segment_ids": [its["segment_id"] for its in ids if "segment_id" in its],
            },
        ) as span:
            self._batch.jobs = dict.fromkeys(jobs, _write_context(span)) if continues else jobs
            try:
                yield
            finally:
                self._batch.jobs = {}

    def mark(self, announcement: Announcement) -> Announcement:
        """With the context that the calling thread's batch has for its job."""
        jobs: Mapping[str, str] = getattr(self._batch, "jobs", {})
        return replace(announcement, traceparent=jobs.get(announcement.job_id, ""))

    @contextmanager
    def _both(self, told: AbstractContextManager[None], name: str) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(self._tracer.start_as_current_span(name))
            stack.enter_context(told)
            yield


class TracedHandler:
    """A `Handler` whose every batch is a span, until its last message is acted on."""

    def __init__(self, handler: Handler, tracing: Tracing) -> None:
        self._handler = handler
        self._tracing = tracing
        self.give_back: Callable[[Sequence[Claimed]], frozenset[str]] = handler.give_back
        self.catch_up: Callable[[], None] = handler.catch_up

    def handle(self, deliveries: Sequence[Delivery], stop: Stop) -> Iterator[Handled]:
        """See `Handler`."""
        with self._tracing.batch(deliveries):
            yield from self._handler.handle(deliveries, stop)


class TracedAnnouncer:
    """An `Announcer` that tells which trace a completion belongs to."""

    def __init__(self, announcer: Announcer, tracing: Tracing) -> None:
        self._announcer = announcer
        self._tracing = tracing

    def submit(self, announcements: Sequence[Announcement]) -> None:
        """See `Announcer`."""
        self._announcer.submit([self._tracing.mark(each) for each in announcements])


def _write_context(span: "Span") -> str:
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def _read_context(delivery: Delivery) -> "SpanContext | None":
    """What the message's attribute says; None when it has none or it is malformed."""
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, Any] = {TRACEPARENT: delivery.traceparent}
    context = trace.get_current_span(TraceContextTextMapPropagator().extract(carrier)).get_span_context()
    return context if delivery.traceparent and context.is_valid else None

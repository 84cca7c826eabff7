"""What waits, in the words of Prometheus: told alike by a worker and by the HTTP side.

Invariant: what nobody could tell has no sample, never a made-up one. The figures are of the queues and of PostgreSQL,
not of the process that tells them.
"""

from collections.abc import Iterator

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from app.core.lag import Lag


def say_what_waits(backlog: int | None, dead_letters: int | None, lag: Lag | None) -> Iterator[Metric]:
    """The gauges of docs/metrics.md; None: nobody could tell."""
    oldest = lag.oldest_job if lag else None
    age = oldest.age_seconds if oldest else 0.0
    yield _known("srp_backlog_messages", "Messages on the input queue that wait to be received.", backlog)
    yield _known("srp_dead_letter_messages", "Messages on the dead-letter queue.", dead_letters)
    yield _known(
        "srp_oldest_unfinished_job_seconds", "Age of the oldest unfinished job; 0 without one.", age if lag else None
    )
    yield _known(
        "srp_outbox_unsent", "Completed jobs whose message is not sent.", lag.unsent_completions if lag else None
    )
    yield _known(
        "srp_outbox_lag_seconds",
        "For how long the oldest completion waits for its message; 0 when none does.",
        lag.unsent_seconds if lag else None,
    )


def _known(name: str, what: str, value: float | None) -> GaugeMetricFamily:
    """Without a sample when nobody could tell."""
    return GaugeMetricFamily(name, what, value)

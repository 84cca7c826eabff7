"""What the measured costs mean at other rates: `python -m bench.capacity FILE` prints the table of docs/performance.md.

Invariant: nothing in it is assumed but what stands here as a named constant; all else is read from the run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from bench.limits import Document, variant
from bench.report import print_a_file, table
from bench.statistics import Spread

RATES = (1_000, 10_000, 100_000)
"""Segments a second."""
BATCH = 10
"""Messages that a call carries."""
BUSY_SHARE = 0.7
"""How busy a worker may be, of the one processor that a Python process can fill, and still take a burst."""
COMMIT_MS = 1.0
"""Until a commit is on disk, on a disk of the kind that databases are run on."""
IN_FLIGHT_LIMIT = 120_000
"""https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html"""
SECONDS_A_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Costs:
    """Of a segment, warm."""

    worker_cpu_ms: float
    postgres_cpu_ms: float
    sqs_calls: float
    transactions: float
    wal_bytes: float
    result_bytes: float
    sqs_bytes: float
    postgres_bytes: float
    batch_ms: float
    """Of a batch, not of a segment: how long it is in hand (median)."""

    @classmethod
    def of(cls, document: Document) -> "Costs":
        """From the worker of the standard profile, which must have been run."""
        worker = variant(document["profiles"]["standard"], "worker")
        counted, observed = worker["counted"], worker["observed"]
        return cls(
            worker_cpu_ms=_median(worker, "contestants"),
            postgres_cpu_ms=_median(worker, "postgres"),
            sqs_calls=counted["round_trips"]["sqs"],
            transactions=counted["round_trips"]["postgres"],
            wal_bytes=Spread.of(run["wal_bytes"] for run in worker["runs"]).median,
            result_bytes=Spread.of(run["result_bytes"] for run in worker["runs"]).median,
            sqs_bytes=counted["bytes"]["sqs"],
            postgres_bytes=counted["bytes"]["postgres"],
            batch_ms=observed["batch_ms"]["p50"],
        )

    @property
    def one_job_limit(self) -> float:
        """Segments a second that a single job can count: its row is held from a settling's start to its commit."""
        return BATCH * 1000 / (BATCH * self.postgres_cpu_ms / 2 + COMMIT_MS)


def needs(costs: Costs, rate: float) -> Mapping[str, float]:
    """What `rate` segments a second take, by name."""
    return {
        "workers (processes)": ceil(rate * costs.worker_cpu_ms / 1000 / BUSY_SHARE),
        "their processors": rate * costs.worker_cpu_ms / 1000,
        "PostgreSQL: processors": rate * costs.postgres_cpu_ms / 1000,
        "PostgreSQL: transactions a second": rate * costs.transactions,
        "PostgreSQL: write-ahead log, MB a second": rate * costs.wal_bytes / 1e6,
        "PostgreSQL: results, GB a day": rate * costs.result_bytes * SECONDS_A_DAY / 1e9,
        "PostgreSQL: network, MB a second": rate * costs.postgres_bytes / 1e6,
        "SQS: calls a second": rate * costs.sqs_calls,
        "SQS: network, MB a second": rate * costs.sqs_bytes / 1e6,
        f"SQS: messages in flight (limit {IN_FLIGHT_LIMIT:,})": rate * costs.batch_ms / 1000,
        f"jobs at a time, at least (one: {costs.one_job_limit:,.0f}/s)": ceil(rate / costs.one_job_limit),
    }


def markdown(document: Document) -> str:
    """The table."""
    costs = Costs.of(document)
    columns = [needs(costs, rate) for rate in RATES]
    rows = [[name, *(_figure(column[name]) for column in columns)] for name in columns[0]]
    return table(["segments a second", *(f"{rate:,}" for rate in RATES)], rows)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"


def _median(each: Document, group: str) -> float:
    return Spread.of(run["cpu_ms"][group] for run in each["runs"]).median


if __name__ == "__main__":
    print_a_file("capacity", "Print what the costs of a run of the standard profile mean at other rates.", markdown)

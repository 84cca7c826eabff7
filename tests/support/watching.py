"""Those who watch a worker: its address, what it answers, and what docs/metrics.md says that it answers."""

import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from tests.support.worker import Worker

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
OF_A_WORKER, OF_THE_HTTP_SIDE = "The metrics", "The HTTP side"
"""Its sections."""
SERVING = re.compile(r"Serving /metrics, /health/live, /health/ready on (http://\S+)")
ROW = re.compile(r"^\| `(\w+)` \| (counter|gauge|histogram|summary) \| (.*?) ?\| (.*) \|$", re.MULTILINE)


class Described(NamedTuple):
    """A metric as a reader knows it; a counter by the name that ends in ``_total``."""

    kind: str
    labels: frozenset[str]
    meaning: str


def address_of(worker: Worker) -> str:
    """Where it serves metrics; waits until it does."""
    worker.wait_for("Serving /metrics")
    found = SERVING.search(worker.log())
    assert found is not None
    return found[1]


def fetch(url: str, method: str = "GET") -> tuple[int, str]:
    """Status and body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def fetch_json(url: str) -> tuple[int, Any]:
    """Status and body."""
    status, body = fetch(url)
    return status, json.loads(body)


def read_samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Value by name and labels, as Prometheus' own parser reads them."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def read_served(text: str) -> dict[str, Described]:
    """What a scrape describes, by name; a family without a sample has no labels to see."""
    served = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = frozenset(label for sample in family.samples for label in sample.labels) - {"le"}
        served[name] = Described(family.type, labels, family.documentation)
    return served


def read_documented(section: str = OF_A_WORKER, *, with_process: bool = True) -> dict[str, Described]:
    """What docs/metrics.md lists there, by name; `with_process`: also what only Linux tells of a process."""
    (text,) = re.findall(rf"^## {section}$(.*?)^## ", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return {
        name: Described(kind, frozenset(re.findall(r"`(\w+)`", labels)), meaning)
        for name, kind, labels, meaning in ROW.findall(text)
        if with_process or not name.startswith("process_")
    }

"""The JSON of bench/out as Markdown: `python -m bench.report FILE`. Pure but for reading that file.

Invariant: every table is made from the document alone, so that an old run can be shown again.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.earlier import EARLIER_WORKER
from bench.limits import Document, checks, cpu_ms, show, variant
from bench.sizes import FULL
from bench.statistics import Spread, ratios

TITLES: Mapping[str, str] = {
    "standard": "The standard family",
    "pairs": "Aligned segments a pair",
    "texts": "Texts in the family",
    "cold": "The first segment of a cold job",
    "start": "From process start to the first committed segment",
    "large-job": "Segments in a job",
    "workers": "Several workers",
    "cloud": "Cloud: every service as far away as in a real region",
    "lanes": "Batches in hand, in the cloud",
    "memory": "Memory",
    "watched": "Metrics served, and not",
}
SERVICES: Mapping[str, str] = {"sqs": "SQS", "postgres": "PostgreSQL", "neo4j": "Neo4j", "cache": "cache"}
ABSENT = "–"
DISTURBED_SHARE = 0.05
"""Of the processors' time in a run, taken by processes that have nothing to do with it."""

type Cell = Callable[[Document], str]


def markdown(document: Document) -> str:
    """The whole report."""
    parts = [*_head(document)]
    for name, profile in document["profiles"].items():
        parts.append(f"## {TITLES[name]} (`{name}`)")
        parts.append(TABLES.get(name, _variants_table)(profile))
    parts.append("## Must show")
    parts.append(must_show(document))
    return "\n\n".join(parts) + "\n"


def must_show(document: Document) -> str:
    """Every figure beside its limit; the limits are meant for the full sizes."""
    note = "" if document["scale"] == FULL.name else ", but small sizes"
    rows = [
        [check.what, check.limit, check.figure, ("ok" if check.ok else "**NOT MET**") + note]
        for check in checks(document)
    ]
    return table(["figure", "limit", "measured", ""], rows)


def timed_runs(document: Document) -> Iterator[Document]:
    """Of all profiles."""
    for profile in document["profiles"].values():
        for each in profile.get("variants", ()):
            yield from each["runs"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, aligned so that it reads well on a terminal too; the first column is text, the others are figures."""
    lines = [[*head], *([*row] for row in rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    aligned = [
        [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        for line in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [aligned[0], rule, *aligned[1:]])


def _head(document: Document) -> Iterator[str]:
    machine = document["machine"]
    yield f"# Benchmark of {machine['began']}"
    yield (
        f"`{document['command']}` at commit {machine['commit']}: {document['repeats']} repeats, seed"
        f" {document['seed']}, sizes: {document['scale']}."
    )
    load = ", ".join(str(value) for value in machine["load_before"])
    yield (
        f"Machine: {machine['processors']} processors ({machine['model']}), {machine['memory_gb']} GB,"
        f" {machine['system']}; load average before the start {load}. All services and contestants share it."
    )
    yield "Versions: " + ", ".join(f"{name} {value}" for name, value in document["versions"].items()) + "."
    if document.get("warning"):
        yield f"**{document['warning']}**"
    shares = [each["others"] for each in timed_runs(document)]
    if disturbed := sum(share > DISTURBED_SHARE for share in shares):
        yield (
            f"**{disturbed} of {len(shares)} timed runs were disturbed: others' work took more than"
            f" {DISTURBED_SHARE:.0%} of the processors, {max(shares):.0%} at most.**"
        )


COLUMNS: Mapping[str, Cell] = {
    "segments/s steady": lambda each: _over_runs(each, "steady", 1),
    "from process start": lambda each: _over_runs(each, "from_start", 1),
    "batch ms p50 / p95 / p99": lambda each: _observed(each, _batches),
    "worker CPU ms": lambda each: _cpu(each, "contestants"),
    "PostgreSQL CPU ms": lambda each: _cpu(each, "postgres"),
    "SQS CPU ms": lambda each: _cpu(each, "sqs"),
    "Neo4j CPU ms": lambda each: _cpu(each, "neo4j"),
    "cache CPU ms": lambda each: _cpu(each, "cache"),
    "processors busy": lambda each: f"{Spread.of(run['load'] for run in each['runs']).median:.0%}",
    "with others' work": lambda each: f"{Spread.of(run['others'] for run in each['runs']).median:.0%}",
    "CPU s in all": lambda each: _over_runs(each, "cpu_seconds", 1),
    "peak MB": lambda each: f"{max(run['peak_mb'] for run in each['runs']):.0f}",
    "round trips: SQS / PG / Neo4j / cache": lambda each: _trips(each),
    "waited for Neo4j, s": lambda each: _observed(each, lambda run: f"{run['neo4j_seconds']:.2f}"),
}


def _variants_table(profile: Document) -> str:
    """A line a variant; CPU and round trips are a segment's. Columns that nobody fills are left out."""
    variants = [*profile["variants"], *([profile["earlier"]] if "earlier" in profile else [])]
    cells = {head: [cell(each) for each in variants] for head, cell in COLUMNS.items()}
    if any(each["label"] == "floor" for each in variants):
        floor = cpu_ms(variant(profile, "floor"))
        cells["worker CPU, times the floor's"] = [show(Spread.of(ratios(cpu_ms(each), floor))) for each in variants]
    kept = {head: column for head, column in cells.items() if set(column) != {ABSENT}}
    rows = [[each["label"], *(column[at] for column in kept.values())] for at, each in enumerate(variants)]
    return table(["", *kept], rows)


def _cold_table(profile: Document) -> str:
    rows = []
    for kind, milliseconds in profile["milliseconds"].items():
        trips = profile["round_trips"][kind]
        counts = [str(trips[service]) for service in SERVICES]
        rows.append([kind, show(Spread.of(milliseconds), 0), *counts])
    return table(["", "ms", *(f"round trips {title}" for title in SERVICES.values())], rows)


def _start_table(profile: Document) -> str:
    labels = {"now": "worker", "before": EARLIER_WORKER}
    rows = [
        [label, *(show(Spread.of(profile[what][which]), 0) for what in ("milliseconds", "cpu_milliseconds"))]
        for which, label in labels.items()
    ]
    return table(["", "ms", "CPU ms"], rows)


TABLES: Mapping[str, Callable[[Document], str]] = {"cold": _cold_table, "start": _start_table}
"""Of the profiles that are not variants side by side."""


def _over_runs(each: Document, name: str, digits: int) -> str:
    values = [run[name] for run in each["runs"]]
    return ABSENT if None in values else show(Spread.of(values), digits)


def _cpu(each: Document, group: str) -> str:
    return f"{Spread.of(run['cpu_ms'][group] for run in each['runs']).median:.2f}"


def _observed(each: Document, cell: Callable[[Document], str]) -> str:
    return cell(each["observed"]) if "observed" in each else ABSENT


def _batches(run: Document) -> str:
    return " / ".join(f"{run['batch_ms'][name]:.1f}" for name in ("p50", "p95", "p99"))


def _trips(each: Document) -> str:
    if "counted" not in each:
        return ABSENT
    trips = each["counted"]["round_trips"]
    parts = " / ".join(f"{trips[service]:.3g}" for service in SERVICES)
    return f"{parts} = {sum(trips.values()):.3g}"


def read(path: Path) -> dict[str, Any]:
    """A document that a run has left."""
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def print_a_file(name: str, what: str, show: Callable[[Document], str]) -> None:
    """The command `python -m bench.NAME FILE`, which prints what `show` makes of a run."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=what)
    parser.add_argument("file", type=Path, metavar="FILE", help="the JSON of a run, such as bench/out/DATE.json")
    path = parser.parse_args().file
    try:
        print(show(read(path)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        parser.error(f"{path} can't be used: {type(error).__name__}: {error}")


if __name__ == "__main__":
    print_a_file("report", "Print a run of the benchmark as Markdown.", markdown)

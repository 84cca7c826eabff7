"""The scaling curves as a picture: `python -m bench.plot FILE PICTURE.png`."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from bench.limits import GROWTH_TIMES, NAIVE_TIMES, Document, against, steady, variant
from bench.report import read
from bench.statistics import Spread

BLUE, ORANGE, GREEN, GREY = "#2b6cb0", "#dd6b20", "#2f855a", "#a0aec0"
CURVES = {
    "pairs": ("aligned segments a pair", "Longer and longer texts"),
    "texts": ("texts in the family", "More and more texts"),
    "large-job": ("segments in the job", "Longer jobs"),
}


def draw(document: Document, path: Path) -> None:
    """Write the picture; what was not measured is left blank."""
    figure, axes = plt.subplots(2, 3, figsize=(13, 7.2), constrained_layout=True)
    flat = list(axes.flat)
    profiles = document["profiles"]
    for axis, (name, (label, title)) in zip(flat, CURVES.items(), strict=False):
        _cost(axis, profiles.get(name), label, title)
    _workers(flat[3], profiles.get("workers"))
    _cloud(flat[4], profiles.get("cloud"))
    _contestants(flat[5], profiles.get("standard"))
    machine = document["machine"]
    figure.suptitle(
        f"Cost of a segment and its growth: {machine['processors']} processors, services included;"
        f" commit {machine['commit']}, {machine['began'][:10]}",
        fontsize=11,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _cost(axis: Any, profile: Document | None, label: str, title: str) -> None:
    """Relative to the first variant, with the spread of the repeats."""
    _label(axis, title, label, "cost of a segment, times the first")
    if profile is None:
        return
    first = profile["variants"][0]
    curve = {each["value"]: against(first, each) for each in reversed(profile["variants"])}
    values = sorted(curve)
    _line(axis, values, [curve[value] for value in values], BLUE, None)
    axis.axhline(GROWTH_TIMES, color=GREY, linestyle="--", linewidth=1)
    axis.set_xscale("log")
    axis.set_xticks(values, [f"{value:,}" for value in values])
    axis.minorticks_off()
    axis.set_ylim(0, max(1.6, 1.1 * max(spread.high for spread in curve.values())))


def _workers(axis: Any, profile: Document | None) -> None:
    _label(axis, "More workers, services on the same processors", "workers", "segments a second")
    if profile is None:
        return
    for name, colour in (("one job", BLUE), ("four jobs", ORANGE)):
        variants = [each for each in profile["variants"] if each["label"].endswith(name)]
        _rates(axis, variants, colour, name)
    axis.legend(frameon=False)


def _cloud(axis: Any, profile: Document | None) -> None:
    _label(axis, "More workers, services in a region", "workers", "segments a second")
    if profile is None:
        return
    naive, one, *more = profile["variants"]
    _rates(axis, [one, *more], GREEN, "measured")
    rate = Spread.of(steady(one)).median
    counts = [each["value"] for each in (one, *more)]
    axis.plot(counts, [rate * count for count in counts], color=GREY, linestyle="--", linewidth=1, label="n × one")
    axis.axhline(Spread.of(steady(naive)).median, color=ORANGE, linewidth=1, label="a query a step")
    axis.legend(frameon=False)


def _contestants(axis: Any, profile: Document | None) -> None:
    _label(axis, "The contestants", "", "segments a second (log)")
    if profile is None:
        return
    labels = {"a query a step": "naive", "worker": "worker", "I/O floor": "floor"}
    rates = [Spread.of(steady(variant(profile, label))).median for label in labels.values()]
    bars = axis.bar(list(labels), rates, color=[ORANGE, BLUE, GREY])
    axis.bar_label(bars, [f"{rate:,.0f}" for rate in rates])
    axis.axhline(NAIVE_TIMES * rates[0], color=GREY, linestyle="--", linewidth=1)
    axis.set_yscale("log")
    axis.set_ylim(top=3 * max(rates))


def _rates(axis: Any, variants: Iterable[Document], colour: str, label: str) -> None:
    points = [(each["value"], Spread.of(steady(each))) for each in variants]
    _line(axis, [value for value, _ in points], [spread for _, spread in points], colour, label)
    axis.set_xticks([value for value, _ in points])
    axis.set_ylim(bottom=0)


def _line(axis: Any, values: Sequence[float], spreads: Sequence[Spread], colour: str, label: str | None) -> None:
    axis.plot(values, [spread.median for spread in spreads], "o-", color=colour, label=label)
    axis.fill_between(values, [s.low for s in spreads], [s.high for s in spreads], color=colour, alpha=0.15)


def _label(axis: Any, title: str, below: str, beside: str) -> None:
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(below)
    axis.set_ylabel(beside)
    axis.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    draw(read(Path(sys.argv[1])), Path(sys.argv[2]))

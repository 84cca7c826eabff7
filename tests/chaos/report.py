"""The table at the end."""

from collections import Counter
from collections.abc import Mapping, Sequence

from tests.chaos import figures, receives
from tests.chaos.crew import Start
from tests.chaos.faults import Tormentor
from tests.chaos.load import Asked
from tests.chaos.surroundings import Surroundings
from tests.chaos.verdict import Verdict, read, warnings

MOST_STALLS = 3
MOST_WARNINGS = 12


def report(
    around: Surroundings,
    asked: Asked,
    starts: Sequence[Start],
    tormentor: Tormentor,
    verdict: Verdict,
    seconds: tuple[float, float],
) -> str:
    """All figures, then what is wrong; `seconds` of breaking and of finishing."""
    lines = ["", *_table(_figures(around, asked, starts, tormentor, verdict, seconds))]
    lines += ["", "faults", *_columns(Counter(each.fault.kind for each in tormentor.happened))]
    lines += ["", "warnings said by the workers, the most frequent kinds"]
    lines += [f"  {count:>7,}  {what}" for what, count in warnings(starts).most_common(MOST_WARNINGS)]
    if verdict.problems:
        lines += ["", f"{len(verdict.problems)} PROBLEMS", *(f"  {problem}" for problem in verdict.problems)]
    else:
        lines += ["", "every invariant held"]
    return "\n".join(lines)


def _figures(
    around: Surroundings,
    asked: Asked,
    starts: Sequence[Start],
    tormentor: Tormentor,
    verdict: Verdict,
    seconds: tuple[float, float],
) -> list[tuple[str, str]]:
    engine = around.admin
    received, again, most = receives.summary(starts)
    exits = sorted(taken for start in starts if (taken := start.seconds_to_exit()) is not None)
    attempts = {int(row.attempts): int(row.n) for row in read(engine, figures.ATTEMPTS)}
    rows = [
        ("broken for, then finished in", f"{seconds[0]:.0f} s, {seconds[1]:.0f} s"),
        ("jobs", _counts(verdict.jobs)),
        ("segments", _counts(verdict.segments)),
        ("of them killers", f"{verdict.killers}, which ended {sum(start.met_a_killer for start in starts)} workers"),
        ("revived by a later message", str(verdict.revived)),
        ("segments by attempts", ", ".join(f"{n}: {count:,}" for n, count in attempts.items())),
        ("messages sent", f"{asked.messages:,}, {asked.duplicates:,} of them twice, {asked.delayed:,} delayed"),
        ("messages received", f"{received:,}; {again:,} more than once, at most {most} times"),
        ("re-sent by the sweep", f"{read(engine, figures.RESENT)[0].n:,}"),
        ("given back, not charged", f"{read(engine, figures.GIVEN_BACK)[0].n:,}"),
        ("taken over, not charged", _counts(figures.takeovers(engine, starts, charged=False)) or "0"),
        ("taken over, charged", _counts(figures.takeovers(engine, starts, charged=True)) or "0"),
        *(("retried, charged", f"{row.n:,}: {row.why}") for row in read(engine, figures.RETRIES)),
        ("completion messages", f"{verdict.announced.total():,} for {len(verdict.announced):,} jobs"),
        ("completions repeated", f"{verdict.announced.total() - len(verdict.announced):,}"),
        ("dead letters", _counts(verdict.dead_letters)),
        ("worker starts", str(len(starts))),
        ("exit after SIGTERM", _spread(exits)),
        (
            "faults",
            f"{len(tormentor.happened)}; {tormentor.skipped.total()} skipped, the target was busy or starting",
        ),
    ]
    for stall in figures.stalls(engine)[:MOST_STALLS]:
        meanwhile = figures.during(stall, tormentor.happened)
        rows.append(("longest stalls", f"{stall.seconds:.1f} s with {stall.waiting:,} waiting: {meanwhile}"))
    return rows


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items(), key=lambda item: -item[1]))


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "none"
    return f"{len(values)} times, {values[0]:.1f} to {values[-1]:.1f} s, half within {values[len(values) // 2]:.1f} s"


def _table(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in rows)
    lines, before = [], ""
    for name, value in rows:
        lines.append(f"{name if name != before else '':<{width}}  {value}")
        before = name
    return lines


def _columns(counts: Counter[str]) -> list[str]:
    return [f"  {count:>4}  {what}" for what, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]

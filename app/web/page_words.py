"""Numbers, moments and spans as a page says them.

Invariant: what a person reads is unambiguous: units are named, times carry their zone, spans are half-open.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

MINUTE_SECONDS: Final = 60
HOUR_SECONDS: Final = 3_600
DAY_SECONDS: Final = 86_400
MOST_CHARACTERS: Final = 240
"""Of a text's content in one place."""


def number(value: int) -> str:
    """12,345."""
    return f"{value:,}"


def span(low: int, high: int) -> str:
    """[200, 300)."""
    return f"[{low}, {high})"


def moment(value: datetime | None) -> str:
    """A moment to the second, in UTC; "never" when there is none."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if value else "never"


def duration(seconds: float | None) -> str:
    """About how long, in the two largest units that matter."""
    if seconds is None:
        return "unknown"
    whole = max(0, round(seconds))
    if whole < MINUTE_SECONDS:
        return f"{whole} s"
    if whole < HOUR_SECONDS:
        return f"{whole // MINUTE_SECONDS} min {whole % MINUTE_SECONDS} s"
    if whole < DAY_SECONDS:
        return f"{whole // HOUR_SECONDS} h {whole % HOUR_SECONDS // MINUTE_SECONDS} min"
    return f"{whole // DAY_SECONDS} d {whole % DAY_SECONDS // HOUR_SECONDS} h"


def rate(per_second: float | None) -> str:
    """Segments a second, or a minute where that says more."""
    if not per_second:
        return "none yet"
    if per_second >= 1:
        return f"{per_second:,.0f} a second" if per_second >= 10 else f"{per_second:.1f} a second"
    return f"{per_second * MINUTE_SECONDS:.1f} a minute"


def count(many: int, one: str, several: str = "") -> str:
    """1 segment, 2 segments."""
    return f"{many:,} {one if many == 1 else several or one + 's'}"


def prose(text: str) -> str:
    """A text's content on one line, cut: its line ends and spaces as one space each."""
    words = " ".join(text.split())
    return words if len(words) <= MOST_CHARACTERS else f"{words[:MOST_CHARACTERS].rstrip()} …"


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "number": number,
    "moment": moment,
    "duration": duration,
    "rate": rate,
    "counted": count,
    "prose": prose,
}

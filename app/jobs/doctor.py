"""``python -m app.jobs doctor``: what is wrong, and what mends it, a line each.

Invariant: nothing is changed, no message is received; a service that does not answer is a finding and keeps nothing
else from being looked at.
"""

import argparse
from typing import Any, Final

from app.jobs.as_json import line_of
from app.jobs.findings import Finding
from app.jobs.printing import tell
from app.jobs.wiring import LazyParts
from app.logs import one_line

OK: Final = "ok"
WRONG: Final = "WRONG"


def run(_parts: LazyParts, options: argparse.Namespace) -> int:
    """The command; 1 when something is wrong."""
    from app.jobs.examining import examine

    wrong = 0
    for finding in examine():
        wrong += finding.is_wrong
        tell(line_of(_fields(finding)) if options.json else _line(finding))
    if not options.json:
        tell(f"{wrong} to mend." if wrong else "Everything is as it should be.")
    return 1 if wrong else 0


def _line(finding: Finding) -> str:
    cure = f" -> {one_line(finding.cure)}" if finding.cure else ""
    return f"{WRONG if finding.is_wrong else OK:<6} {finding.about}: {one_line(finding.what)}{cure}"


def _fields(finding: Finding) -> dict[str, Any]:
    return {
        "about": finding.about,
        "is_wrong": finding.is_wrong,
        "finding": finding.what,
        "cure": finding.cure,
    }

"""What the runbook says that operators see is what the code says."""

import re
from typing import Final

from scripts.reference.code import ROOT

VENDORS: Final = (
    "Unauthorized",
    "password authentication failed",
    "permission denied for table ",
    "connection ",
    " refused",
    "ServiceUnavailable",
    "cannot execute UPDATE in a read-only transaction",
)
"""What comes from a driver or a server, and stands in no source of ours."""
VARIABLE: Final = re.compile(r"\.\.\.|\b\d+|'|: |, ")
QUOTED: Final = re.compile(r"`([^`]+)`")


def fragments() -> set[str]:
    """The constant parts of the lines that stand as headings."""
    text = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    lines = [line for heading in re.findall(r"^### (.+)$", text, re.MULTILINE) for line in QUOTED.findall(heading)]
    parts = {part.strip(" :;") for line in lines for part in VARIABLE.split(line)}
    return {part for part in parts if len(part) > 5 and not any(vendor.strip() in part for vendor in VENDORS)}


def test_every_line_in_a_heading_is_one_that_the_code_writes() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "app").rglob("*.py"))
    found = fragments()
    assert len(found) > 20
    services = ("PostgreSQL ", "Neo4j ", "SQS ", "Waiting for ")
    missing = [part for part in found if _without(part, services) not in sources]
    assert missing == []


def test_every_alert_leads_to_an_entry() -> None:
    rules = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "ops" / "prometheus").glob("*.y*ml"))
    alerts = set(re.findall(r"- alert: (\w+)", rules))
    text = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    assert len(alerts) > 5
    assert {alert for alert in alerts if f"| `{alert}` |" not in text} == set()


def _without(part: str, starts: tuple[str, ...]) -> str:
    """`part` without a service's name, which the code puts in."""
    for start in starts:
        part = part.removeprefix(start)
    return part

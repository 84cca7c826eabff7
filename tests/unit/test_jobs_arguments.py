"""The command line's outside: what its help imports and says, and what docs/commands.md promises of it."""

import re
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from app.core.jobs import SEGMENT_STATUSES, Job
from app.core.overview import Speed
from app.core.standing import Holder, LastError, Standing
from app.jobs.arguments import EXIT_CODES, parse
from app.jobs.as_json import dead_letter_fields, queue_fields, standing_fields
from app.jobs.commands import COMMANDS
from app.jobs.explaining import explanation_fields
from app.jobs.formats import CSV_COLUMNS
from app.pages.explain import explain
from app.sqs.dead_letters import DeadLetter
from app.sqs.delivery import Delivery
from tests.support.answers import example_files, read_example
from tests.support.graphs import MemoryGraph
from tests.support.services import ROOT

DOCUMENT = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
DOCUMENTED = set(re.findall(r"`([a-z_]+)`", DOCUMENT))
HEAVY = ("boto3", "neo4j", "psycopg2", "pydantic", "redis", "rich", "sqlalchemy")
NOW = datetime(2026, 1, 2, tzinfo=UTC)
JOB = Job("550e8400-e29b-41d4-a716-446655440000", "m", 3, 1, 1, "FAILED", NOW, NOW, None)


@pytest.mark.parametrize("arguments", [["--help"], ["show", "--help"], ["show", "abc"], ["dead-letters"]])
def test_help_and_usage_errors_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom app.jobs.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        f"finally: sys.stderr.write('LOADED' + repr(sorted(set(sys.modules) & set({HEAVY!r}))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr.partition("LOADED")[2].startswith("[]"), done.stderr
    assert done.returncode in (0, 2)


def test_the_worker_imports_nothing_that_it_does_not_use() -> None:
    optional = (
        *("aws_sqs_consumer", "boto3", "fastapi", "http.server", "jinja2", "opentelemetry", "prometheus_client"),
        *("redis", "sqlalchemy"),
    )
    code = f"import sys, app.main; print(sorted(set(sys.modules) & set({optional!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_help_tells_every_exit_code_and_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert all(re.search(rf"^  {code} +{re.escape(meaning)}$", out, re.M) for code, meaning in EXIT_CODES.items())
    assert all(re.search(rf"^    {name}\b", out, re.M) for name in COMMANDS)
    assert set(EXIT_CODES) == {int(code) for code in re.findall(r"^\| (\d+) \|", DOCUMENT, re.M)}


def test_every_json_field_is_documented() -> None:
    standing = Standing(
        dict.fromkeys(SEGMENT_STATUSES, 1), 1, (Holder("w", 1, NOW),), 1, NOW, NOW, 1, 1, 1, NOW,
        LastError("s", "FAILED", "broken", NOW), Speed(1, 1.0),
    )  # fmt: skip
    letter = DeadLetter("id", None, None, None, 1, NOW, Delivery("id", "h", "", 1, 0, {}, 0.0))
    family, (asked, *_) = read_example(example_files()[-1])
    explained = explain(asked.manifestation_id, asked.start, asked.end, MemoryGraph(family))
    shown = [
        standing_fields(JOB, standing, None),
        queue_fields("q", None, "why"),
        dead_letter_fields(letter),
        explanation_fields(explained) | {"related": None},
    ]
    names = {name for fields in shown for name in _names(fields)} | set(CSV_COLUMNS) - {"start", "end"}
    assert names - set(SEGMENT_STATUSES) <= DOCUMENTED


def _names(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(_names, value.values()))
    return set().union(*map(_names, value)) if isinstance(value, list) else set()

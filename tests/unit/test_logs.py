"""Log lines as operators grep for them."""

import io
import json
import logging
import re

import pytest

from app import logs
from app.logs import fields, set_worker, setup_logging


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(autouse=True)
def _restore_root() -> object:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    setup_logging("INFO", "text")
    logs._worker.clear()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_the_published_text_format(stream: io.StringIO) -> None:
    setup_logging("INFO", "text", stream)
    logging.getLogger("app.tasks").info("Processing segment %s for job %s", "ABC123", "550e8400")
    pattern = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - app\.tasks - INFO - Processing segment ABC123 for job 550e8400\n"
    assert re.fullmatch(pattern, stream.getvalue())


def test_an_id_can_not_forge_a_line(stream: io.StringIO) -> None:
    setup_logging("INFO", "text", stream)
    logging.getLogger("app.tasks").info(
        "Segment %s", "x\n2025-01-01 00:00:00 - app.tasks - INFO - forged\r\x1b[31m\u2028"
    )
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    assert "\\n2025" in stream.getvalue()


def test_json_has_the_fields_and_stays_one_line(stream: io.StringIO) -> None:
    setup_logging("INFO", "json", stream)
    logging.getLogger("app.tasks").warning("Late %s", "a\nb", extra={"job_id": "J"})
    entry = json.loads(stream.getvalue())
    assert (entry["logger"], entry["level"], entry["event"], entry["job_id"]) == (
        "app.tasks",
        "WARNING",
        "Late a\nb",
        "J",
    )
    assert entry["time"].endswith("Z")
    assert stream.getvalue().count("\n") == 1


def test_json_lines_carry_ids_as_fields_and_the_worker(stream: io.StringIO) -> None:
    setup_logging("INFO", "json", stream)
    set_worker("host-1")
    logging.getLogger("app.tasks").info("Late", extra=fields(job_id="J", segment_id="S\n", attempt=2))
    entry = json.loads(stream.getvalue())
    assert {name: entry[name] for name in ("worker", "job_id", "segment_id", "attempt")} == {
        "worker": "host-1",
        "job_id": "J",
        "segment_id": "S\n",
        "attempt": 2,
    }


def test_text_lines_pay_nothing_for_fields(stream: io.StringIO) -> None:
    setup_logging("INFO", "text", stream)
    set_worker("host-1")
    assert fields(job_id="J") is None
    logging.getLogger("app.tasks").info("Late", extra=fields(job_id="J"))
    assert stream.getvalue().endswith(" - app.tasks - INFO - Late\n")


def test_a_traceback_is_kept(stream: io.StringIO) -> None:
    setup_logging("INFO", "text", stream)
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("app.worker.loop").exception("A bug")
    assert "ValueError: broken" in stream.getvalue()


def test_libraries_are_quiet_below_warning(stream: io.StringIO) -> None:
    setup_logging("DEBUG", "text", stream)
    logging.getLogger("botocore").info("headers with a signature")
    logging.getLogger("neo4j").info("a query")
    assert stream.getvalue() == ""


def test_the_graphs_driver_does_not_repeat_as_an_error_what_it_raises(stream: io.StringIO) -> None:
    setup_logging("DEBUG", "text", stream)
    logging.getLogger("neo4j.io").error("[#E4E0]  _: <CONNECTION> error: Failed to read from defunct connection")
    assert stream.getvalue() == ""

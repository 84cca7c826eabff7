"""Log lines as operators grep for them."""

import io
import json
import logging
import re
import subprocess
import sys
import threading
import time

import pytest

from app import logs
from app.logs import BatchHandler, fields, info_each, set_worker, setup_logging
from tests.support.worker import wait_until

NEVER_SECONDS = 3_600.0
BEGIN = """
import atexit, logging, os, signal, sys, threading
from app import logs
from app.threads.stopping import Signals
logs.LATEST_SECONDS = {latest}
logs.setup_logging("INFO", "text")
log = logging.getLogger("app.tasks")
"""


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


def written(stream: io.StringIO) -> str:
    """What `stream` holds once nothing waits."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    return stream.getvalue()


def run(ending: str, latest: float = NEVER_SECONDS) -> subprocess.CompletedProcess[str]:
    """A process that logs and ends so."""
    command = [sys.executable, "-c", BEGIN.format(latest=latest) + ending]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_published_text_format(stream: io.StringIO) -> None:
    setup_logging("INFO", "text", stream)
    logging.getLogger("app.tasks").info("Processing segment %s for job %s", "ABC123", "550e8400")
    pattern = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - app\.tasks - INFO - Processing segment ABC123 for job 550e8400\n"
    assert re.fullmatch(pattern, written(stream))


def test_an_id_can_not_forge_a_line(stream: io.StringIO) -> None:
    setup_logging("INFO", "text", stream)
    logging.getLogger("app.tasks").info(
        "Segment %s", "x\n2025-01-01 00:00:00 - app.tasks - INFO - forged\r\x1b[31m\u2028"
    )
    assert written(stream).count("\n") == 1
    assert "\x1b" not in written(stream)
    assert "\\n2025" in written(stream)


def test_json_has_the_fields_and_stays_one_line(stream: io.StringIO) -> None:
    setup_logging("INFO", "json", stream)
    logging.getLogger("app.tasks").warning("Late %s", "a\nb", extra={"job_id": "J"})
    entry = json.loads(written(stream))
    assert (entry["logger"], entry["level"], entry["event"], entry["job_id"]) == (
        "app.tasks",
        "WARNING",
        "Late a\nb",
        "J",
    )
    assert entry["time"].endswith("Z")
    assert written(stream).count("\n") == 1


def test_json_lines_carry_ids_as_fields_and_the_worker(stream: io.StringIO) -> None:
    setup_logging("INFO", "json", stream)
    set_worker("host-1")
    logging.getLogger("app.tasks").info("Late", extra=fields(job_id="J", segment_id="S\n", attempt=2))
    entry = json.loads(written(stream))
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
    assert written(stream).endswith(" - app.tasks - INFO - Late\n")


def test_a_traceback_is_kept(stream: io.StringIO) -> None:
    setup_logging("INFO", "text", stream)
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("app.worker.loop").exception("A bug")
    assert "ValueError: broken" in written(stream)


def test_libraries_are_quiet_below_warning(stream: io.StringIO) -> None:
    setup_logging("DEBUG", "text", stream)
    logging.getLogger("botocore").info("headers with a signature")
    logging.getLogger("neo4j").info("a query")
    assert written(stream) == ""


def test_the_graphs_driver_does_not_repeat_as_an_error_what_it_raises(stream: io.StringIO) -> None:
    setup_logging("DEBUG", "text", stream)
    logging.getLogger("neo4j.io").error("[#E4E0]  _: <CONNECTION> error: Failed to read from defunct connection")
    assert written(stream) == ""


def test_a_line_has_its_own_second(stream: io.StringIO) -> None:
    setup_logging("INFO", "text", stream)
    moments = [1_700_000_000.0, 1_700_000_000.9, 1_700_000_001.0, 1_700_000_000.9]
    for created in moments:
        record = logging.makeLogRecord({"name": "app.tasks", "levelname": "INFO", "levelno": logging.INFO, "msg": "at"})
        record.created = created
        logging.getLogger().handle(record)
    stamps = [time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(created)) for created in moments]
    assert written(stream) == "".join(f"{stamp} - app.tasks - INFO - at\n" for stamp in stamps)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_together_the_lines_are_those_of_a_plain_handler(log_format: str, stream: io.StringIO) -> None:
    setup_logging("INFO", log_format, stream)
    batched = logging.getLogger().handlers[0]
    plain = logging.StreamHandler(io.StringIO())
    plain.setFormatter(batched.formatter)
    logging.getLogger().addHandler(plain)
    log = logging.getLogger("app.tasks")
    for number in range(3):
        log.info("Processing segment %s", f"s{number}\n", extra=fields(segment_id=number))
    try:
        raise ValueError("broken")
    except ValueError:
        log.info("A bug", exc_info=True)
    assert written(stream) == plain.stream.getvalue()


@pytest.fixture
def _time_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.25)
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_250_000_000)


@pytest.mark.usefixtures("_time_stands")
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_said_at_once_the_lines_are_those_said_one_by_one(log_format: str, stream: io.StringIO) -> None:
    setup_logging("INFO", log_format, stream)
    set_worker("host-1")
    log = logging.getLogger("app.tasks")
    said = [((name, "J"), fields(segment_id=name, attempt=2)) for name in ("a", "b\n\u2028", "%s", '\x1b"')]
    info_each(log, "Processing segment %s for job %s", said)
    for arguments, ids in said:
        log.info("Processing segment %s for job %s", *arguments, extra=ids)
    lines = written(stream).splitlines()
    assert len(lines) == 8
    assert lines[:4] == lines[4:]


def test_no_record_is_made_that_nobody_sees(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    setup_logging("INFO", "text", stream)
    monkeypatch.setattr(logging.Logger, "makeRecord", None)
    info_each(logging.getLogger("app.tasks"), "Late %s", [(("a",), None)])
    assert written(stream).endswith(" - app.tasks - INFO - Late a\n")


@pytest.mark.parametrize("where", ["root", "app", "app.tasks", "filter", "handler's filter", "factory"])
def test_who_else_listens_gets_a_record_a_line(
    where: str, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup_logging("INFO", "json", stream)
    seen: list[logging.LogRecord] = []
    log = logging.getLogger("app.tasks")

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    def listen(record: logging.LogRecord) -> bool:
        seen.append(record)
        return True

    def make(*arguments: object, **more: object) -> logging.LogRecord:
        seen.append(logging.LogRecord(*arguments, **more))  # type: ignore[arg-type]
        return seen[-1]

    match where:
        case "filter":
            monkeypatch.setattr(log, "filters", [listen])
        case "handler's filter":
            logging.getLogger().handlers[0].addFilter(listen)
        case "factory":
            monkeypatch.setattr(logging, "_logRecordFactory", make)
        case _:
            logger = logging.getLogger(where)
            monkeypatch.setattr(logger, "handlers", [*logger.handlers, Listener()])
    info_each(log, "Late %s", [(("a",), {"job_id": "J"}), (("b",), {"job_id": "K"})])
    assert [(record.getMessage(), vars(record)["job_id"]) for record in seen] == [("Late a", "J"), ("Late b", "K")]
    assert [json.loads(line)["event"] for line in written(stream).splitlines()] == ["Late a", "Late b"]


@pytest.mark.parametrize("who", ["root", "handler", "logger"])
def test_nothing_is_said_at_once_below_the_level(
    who: str, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup_logging("INFO", "text", stream)
    log = logging.getLogger("app.tests.quiet")
    root = logging.getLogger()
    {"root": root.setLevel, "handler": root.handlers[0].setLevel, "logger": log.setLevel}[who](logging.WARNING)
    info_each(log, "Late %s", [(("a",), None)])
    log.setLevel(logging.NOTSET)
    assert written(stream) == ""


def test_what_is_said_at_once_keeps_its_place(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> None:
    monkeypatch.setattr(logs, "LATEST_SECONDS", NEVER_SECONDS)
    setup_logging("INFO", "text", stream)
    log = logging.getLogger("app.tasks")
    log.info("1")
    info_each(log, "%s", [(("2",), None), (("3",), None)])
    info_each(logging.getLogger("app.neo4j_database"), "%s", [(("4",), None)])
    assert stream.getvalue() == ""
    log.warning("5")
    assert re.findall(r"- (\d)$", stream.getvalue(), re.MULTILINE) == ["1", "2", "3", "4", "5"]


def test_lines_said_at_once_are_written_though_none_follows(stream: io.StringIO) -> None:
    setup_logging("INFO", "text", stream)
    info_each(logging.getLogger("app.tasks"), "%s", [])
    info_each(logging.getLogger("app.tasks"), "%s", [(("first",), None), (("last",), None)])
    wait_until(lambda: stream.getvalue().endswith("last\n"), "the lines", 30)


def test_lines_are_written_together(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> None:
    monkeypatch.setattr(logs, "LATEST_SECONDS", NEVER_SECONDS)
    setup_logging("INFO", "text", stream)
    for number in range(3):
        logging.getLogger("app.tasks").info("Segment %d", number)
    assert stream.getvalue() == ""
    assert re.findall(r"Segment (\d)", written(stream)) == ["0", "1", "2"]


@pytest.mark.parametrize("level", [logging.WARNING, logging.ERROR, logging.CRITICAL])
def test_a_warning_is_written_at_once_and_after_what_came_before(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, level: int
) -> None:
    monkeypatch.setattr(logs, "LATEST_SECONDS", NEVER_SECONDS)
    setup_logging("INFO", "text", stream)
    logging.getLogger("app.tasks").info("first")
    logging.getLogger("app.tasks").log(level, "second")
    assert re.findall(r"- (\w+)$", stream.getvalue(), re.MULTILINE) == ["first", "second"]


def test_a_line_is_written_though_none_follows(stream: io.StringIO) -> None:
    setup_logging("INFO", "text", stream)
    logging.getLogger("app.tasks").info("first")
    wait_until(lambda: stream.getvalue().endswith("first\n"), "the first line", 30)
    logging.getLogger("app.tasks").info("second")
    wait_until(lambda: stream.getvalue().endswith("second\n"), "the second line", 30)


def test_one_timer_waits_however_often_a_warning_comes_between(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO
) -> None:
    monkeypatch.setattr(logs, "LATEST_SECONDS", NEVER_SECONDS)
    setup_logging("INFO", "text", stream)
    before = threading.active_count()
    for _ in range(3):
        logging.getLogger("app.tasks").info("first")
        logging.getLogger("app.tasks").warning("second")
    assert threading.active_count() <= before + 1


def test_lines_of_a_fork_are_written_too() -> None:
    done = run(
        "log.info('parent'); logs.LATEST_SECONDS = 0\n"
        "logging.getLogger().handlers[0].flush()\n"
        "if os.fork():\n"
        "    os.wait(); os._exit(0)\n"
        "log.info('last'); logs.wait_until_written(); os._exit(0)\n"
    )
    assert done.stderr.count("app.tasks - INFO - last\n") == 1


def test_a_line_is_written_at_once_when_no_thread_can_be_had(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    setup_logging("INFO", "text", stream)
    logging.getLogger("app.tasks").info("first")
    assert stream.getvalue().endswith("first\n")


def test_a_broken_stream_keeps_nothing_and_ends_nothing(stream: io.StringIO) -> None:
    handler = BatchHandler(stream)
    stream.close()
    handler.handle(logging.makeLogRecord({"msg": "first", "levelno": logging.WARNING}))
    assert not handler.has_lines


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("log.info('last')", 0),
        ("log.info('last'); sys.exit(3)", 3),
        ("logs.info_each(log, '%s', [(('last',), None)]); raise ValueError", 1),
        ("log.info('last'); raise ValueError", 1),
        ("log.info('last'); logging.shutdown(); os._exit(4)", 4),
        ("logging.shutdown(); log.info('last'); os._exit(5)", 5),
        ("log.info('last'); logging.getLogger().handlers[0].close(); os._exit(6)", 6),
        ("log.info('last'); t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()", 0),
    ],
)
def test_nothing_is_lost_at_the_end(ending: str, code: int) -> None:
    done = run(ending)
    assert (done.returncode, done.stderr.count("app.tasks - INFO - last\n")) == (code, 1)


def test_nothing_is_lost_when_a_second_signal_ends_it() -> None:
    done = run(
        "with Signals(lambda: None):\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    log.info('last')\n"
        "    signal.raise_signal(signal.SIGTERM)\n",
        logs.LATEST_SECONDS,
    )
    assert (done.returncode, done.stderr.count("app.tasks - INFO - last\n")) == (128 + 15, 1)


def test_a_second_signal_ends_it_though_the_log_is_held() -> None:
    done = run(
        "with Signals(lambda: None):\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    log.info('last')\n"
        "    logging.getLogger().handlers[0].acquire()\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
    )
    assert done.returncode == 128 + 15

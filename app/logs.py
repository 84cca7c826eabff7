"""Log lines as published: ``2025-11-18 10:30:45 - app.tasks - INFO - Processing segment …``, or JSON lines.

Invariant: one record is one line whatever an id contains (control characters are escaped), and a record carries
ids and reasons, never a message body, a result or a secret. Fields come through ``extra=fields(job_id=…)``, and cost
nothing where the format shows none.

Lines below WARNING are written together, `LATEST_SECONDS` after the first of them at the latest; all are at every end
but a hard one: what ends a process from outside or in native code (SIGKILL) takes those of its last `LATEST_SECONDS`.
"""

import json
import logging
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any, Final

_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUIET: Final = ("boto3", "botocore", "urllib3", "redis", "sqlalchemy", "s3transfer")
_SILENT: Final = ("neo4j",)
"""Says with ERROR what it also raises and the worker deals with: a connection that was cut, for one."""
LATEST_SECONDS: Final = 0.1
"""How long a line may wait for others to be written with."""
_PATIENCE_SECONDS: Final = 1.0
_STEP_SECONDS: Final = 0.01


_shows_fields = False
_worker: dict[str, str] = {}


def fields(**ids: object) -> dict[str, object] | None:
    """The ids of a record, for its `extra`; None when the format has no place for them."""
    return ids if _shows_fields else None


def set_worker(name: str) -> None:
    """Put this worker's name on every JSON line from now on."""
    _worker["worker"] = name


def setup_logging(level: str, log_format: str, stream: IO[str] | None = None) -> None:
    """Send everything of `level` and above to `stream` (default: stderr), ``text`` or ``json``.

    Libraries speak from WARNING on only: their chatter holds queries and headers.
    """
    global _shows_fields
    _shows_fields = log_format == "json"
    handler = BatchHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    _skip_what_no_format_shows()


def wait_until_written() -> None:
    """Let the lines in hand be written, for a second at most. Takes no lock: for a signal handler that ends it all."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, BatchHandler)]
    while any(handler.has_lines for handler in handlers) and time.monotonic() < deadline:
        time.sleep(_STEP_SECONDS)


def _skip_what_no_format_shows() -> None:
    """Spare every record the look at the stack, thread, process and path (the logging HOWTO's "Optimization")."""
    logging.setLogRecordFactory(Record)
    for switch in ("logThreads", "logProcesses", "logMultiprocessing", "logAsyncioTasks"):
        setattr(logging, switch, False)
    setattr(logging, "_srcfile", None)  # noqa: B010  (private, but documented there)


class Record(logging.LogRecord):
    """A record whose path is not taken apart, which is a third of what making one costs."""

    def __init__(  # as the class's it replaces
        self,
        name: str,
        level: int,
        pathname: str,
        lineno: int,
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,
        sinfo: str | None = None,
        **_: object,
    ) -> None:
        created = time.time()
        self.name = name
        self.msg = msg
        self.args = args[0] if len(args) == 1 and isinstance(args[0], dict) and args[0] else args
        self.levelname = logging.getLevelName(level)
        self.levelno = level
        self.pathname = self.filename = pathname
        self.module = ""
        self.lineno = lineno
        self.funcName = func  # type: ignore[assignment]
        self.exc_info = exc_info
        self.exc_text = None
        self.stack_info = sinfo
        self.created = created
        self.msecs = created % 1 * 1000 // 1
        self.relativeCreated = 0.0
        self.thread = self.threadName = self.process = self.processName = self.taskName = None


class BatchHandler(logging.StreamHandler[IO[str]]):
    """Many lines a write, in the order in which they were logged; from WARNING on, and once closed, at once.

    Invariant: while lines wait, so does one timer. `emit` is called under the handler's lock, and `flush` takes it.
    """

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(stream)
        self._lines: list[str] = []
        self._at_once_from = logging.WARNING
        self._timer: threading.Timer | None = None

    @property
    def has_lines(self) -> bool:
        """Whether a line is not written yet."""
        return bool(self._lines)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(self.format(record) + self.terminator)
            if record.levelno >= self._at_once_from:
                self.flush()
            elif len(self._lines) == 1:
                self._flush_soon()
        except Exception:  # noqa: BLE001  (as in logging: a record that can't be shown harms nobody)
            self.handleError(record)

    def flush(self) -> None:
        """Write what waits. What the stream refuses is lost, as a line alone would be."""
        self.acquire()
        try:
            if self._lines:
                with suppress(OSError, ValueError):
                    self.stream.write("".join(self._lines))
                    self.stream.flush()
        finally:
            self._lines.clear()
            self.release()

    def close(self) -> None:
        """Write what waits and, from now on, every line at once: no timer outlives the interpreter."""
        self._at_once_from = logging.NOTSET
        self.flush()
        super().close()

    def _flush_soon(self) -> None:
        if self._timer is not None and self._timer.is_alive():  # in a fork its thread is gone
            return
        self._timer = threading.Timer(LATEST_SECONDS, self._flush_on_time)
        self._timer.daemon = True
        try:
            self._timer.start()
        except RuntimeError:  # no thread can be had, or not any more
            self.flush()

    def _flush_on_time(self) -> None:
        self.acquire()
        try:
            self._timer = None
            self.flush()
        finally:
            self.release()


class TextFormatter(logging.Formatter):
    """The published text format in local time; the second's text is made once a second."""

    def __init__(self) -> None:
        super().__init__()
        self._second = -1
        self._stamp = ""

    def format(self, record: logging.LogRecord) -> str:
        second = int(record.created)
        if second != self._second:
            self._stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
            self._second = second
        line = f"{self._stamp} - {record.name} - {record.levelname} - {one_line(record.getMessage())}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC, ISO 8601), logger, level, event, the worker and the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "logger": record.name,
            "level": record.levelname,
            "event": record.getMessage(),
            **_worker,
            **_fields(vars(record)),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def _fields(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if key not in _OWN}


def one_line(text: str) -> str:
    """`text` with every control, line-breaking or unprintable character escaped, so that no id can forge a line."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)

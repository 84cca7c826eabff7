"""Log lines as published: ``2025-11-18 10:30:45 - app.tasks - INFO - Processing segment …``, or JSON lines.

Invariant: one record is one line whatever an id contains (control characters are escaped), and a record carries
ids and reasons, never a message body, a result or a secret. Fields come through ``extra=fields(job_id=…)``, and cost
nothing where the format shows none. What is said of every segment goes through `info_each`.

Lines below WARNING are written together, `LATEST_SECONDS` after the first of them at the latest; all are at every end
but a hard one: what ends a process from outside or in native code (SIGKILL) takes those of its last `LATEST_SECONDS`.
"""

import json
import logging
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import IO, Final

_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUIET: Final = ("boto3", "botocore", "urllib3", "redis", "sqlalchemy", "s3transfer")
_SILENT: Final = ("neo4j",)
"""Says with ERROR what it also raises and the worker deals with: a connection that was cut, for one."""
LATEST_SECONDS: Final = 0.1
"""How long a line may wait for others to be written with."""
_PATIENCE_SECONDS: Final = 1.0
_STEP_SECONDS: Final = 0.01

type Ids = Mapping[str, object]
type Said = tuple[str, Ids | None]
"""An event, and its ids where the format shows any."""

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


def info_each(log: logging.Logger, event: str, said: Iterable[tuple[tuple[object, ...], Ids | None]]) -> None:
    """`log.info(event, *arguments, extra=ids)` for each of `said`, its arguments and ids, at a fraction of the cost.

    Where our own handler alone listens no record is made: only another listener would see one.
    """
    if not log.isEnabledFor(logging.INFO):
        return
    match _listeners(log):
        case [BatchHandler(formatter=LineFormatter() as formatter, level=level) as handler] if level <= logging.INFO:
            events = ((event % arguments, ids) for arguments, ids in said)
            handler.add(formatter.lines(time.time(), log.name, "INFO", events), logging.INFO)
        case _:
            for arguments, ids in said:
                log.info(event, *arguments, extra=ids)


def _listeners(log: logging.Logger) -> list[object]:
    """Whatever is shown a record of `log`: what makes it, filters and handlers, also those above `log`."""
    listeners: list[object] = [*log.filters]
    if logging.getLogRecordFactory() is not logging.LogRecord:
        listeners.append(logging.getLogRecordFactory())
    logger: logging.Logger | None = log
    while logger is not None:
        for handler in logger.handlers:
            listeners += [*handler.filters, handler]
        logger = logger.parent if logger.propagate else None
    return listeners


def wait_until_written() -> None:
    """Let the lines in hand be written, for a second at most. Takes no lock: for a signal handler that ends it all."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, BatchHandler)]
    while any(handler.has_lines for handler in handlers) and time.monotonic() < deadline:
        time.sleep(_STEP_SECONDS)


def _skip_what_no_format_shows() -> None:
    """Spare every record the look at the stack, thread and process (the logging HOWTO's "Optimization")."""
    for switch in ("logThreads", "logProcesses", "logMultiprocessing", "logAsyncioTasks"):
        setattr(logging, switch, False)
    setattr(logging, "_srcfile", None)  # noqa: B010  (private, but documented there)


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
            self.add([self.format(record)], record.levelno)
        except Exception:  # noqa: BLE001  (as in logging: a record that can't be shown harms nobody)
            self.handleError(record)

    def add(self, lines: Sequence[str], level: int) -> None:
        """Have `lines` of one level written, without their ends."""
        self.acquire()
        try:
            none_waited = not self._lines
            self._lines += lines
            if level >= self._at_once_from:
                self.flush()
            elif none_waited:
                self._flush_soon()
        finally:
            self.release()

    def flush(self) -> None:
        """Write what waits. What the stream refuses is lost, as a line alone would be."""
        self.acquire()
        try:
            if self._lines:
                with suppress(OSError, ValueError):
                    self.stream.write(self.terminator.join([*self._lines, ""]))
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


class LineFormatter(logging.Formatter):
    """Makes lines of what a logger says, be there a record of it or not."""

    def lines(self, created: float, name: str, level: str, said: Iterable[Said]) -> list[str]:
        """What the logger `name` says at `created` (seconds since the epoch), a line each, without its end."""
        raise NotImplementedError


class TextFormatter(LineFormatter):
    """The published text format in local time."""

    def format(self, record: logging.LogRecord) -> str:
        (line,) = self.lines(record.created, record.name, record.levelname, [(record.getMessage(), None)])
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line

    def lines(self, created: float, name: str, level: str, said: Iterable[Said]) -> list[str]:
        start = f"{_local_time(int(created))} - {name} - {level} - "
        return [start + one_line(event) for event, _ in said]


class JsonFormatter(LineFormatter):
    """One JSON object a line: time (UTC, ISO 8601), logger, level, event, the worker and the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        ids = {key: value for key, value in vars(record).items() if key not in _OWN}
        if record.exc_info:
            ids["exception"] = self.formatException(record.exc_info)
        (line,) = self.lines(record.created, record.name, record.levelname, [(record.getMessage(), ids)])
        return line

    def lines(self, created: float, name: str, level: str, said: Iterable[Said]) -> list[str]:
        moment = f"{_universal_time(int(created))}.{int(created % 1 * 1000):03d}Z"
        start = _to_json({"time": moment, "logger": name, "level": level})[:-1]
        return [f"{start}, {_to_json({'event': event, **_worker, **(ids or {})})[1:]}" for event, ids in said]


_to_json: Final = json.JSONEncoder(default=str).encode


@lru_cache(maxsize=2)
def _local_time(second: int) -> str:
    """Made once a second: it costs as much as the rest of a line."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))


@lru_cache(maxsize=2)
def _universal_time(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def one_line(text: str) -> str:
    """`text` with every control, line-breaking or unprintable character escaped, so that no id can forge a line."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)

"""The one error a person sees: its text says what went wrong and what to do next."""

from pathlib import Path

LOG_TAIL_LINES = 15


class DevstackError(Exception):
    """The stack could not do what was asked."""


def with_log(message: str, log: Path) -> DevstackError:
    """An error that carries the last lines of a service's log."""
    lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:] if log.exists() else []
    tail = "\n".join(f"    {line}" for line in lines) or "    (empty)"
    return DevstackError(f"{message}\nThe last lines of {log}:\n{tail}")

"""How a command of ``python -m app.jobs`` is run in a test."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


type Command = Callable[..., Ran]

"""The port to the key-value store behind the shared tier; app/caching/redis_store.py is the real one.

Invariant: a store fails only with `StoreError`; to speak of one loads no client.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from app.errors import ProcessorError


class StoreError(ProcessorError):
    """The store does not answer or refuses; nothing that it holds is needed."""


class Entry(NamedTuple):
    """A value to set. It vanishes after `expires_ms`; `only_if_absent` leaves a value that is there alone."""

    key: str
    value: bytes
    expires_ms: int
    only_if_absent: bool = False


class Store(Protocol):
    """Keys to bytes that may vanish at any time."""

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values, in the order of the keys. Raises `StoreError`."""
        ...

    def set_many(self, entries: Sequence[Entry]) -> list[bool]:
        """Whether each was set. Raises `StoreError`."""
        ...

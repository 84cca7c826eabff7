"""The process's one driver, for all who name no server of their own.

Invariant: the last of its users closes it, and nobody else.
"""

from threading import Lock
from typing import Final

import neo4j

from app.graph.session import open_driver

type Settings = tuple[str, str, str]
"""URI, user, password."""

_lock: Final = Lock()
_drivers: Final[dict[Settings, neo4j.Driver]] = {}
_users: Final[dict[Settings, int]] = {}


def borrow(settings: Settings) -> neo4j.Driver:
    """The driver with these settings, opened for the first who asks. Each borrower calls `give_back` once."""
    with _lock:
        if settings not in _drivers:
            _drivers[settings] = open_driver(*settings)
            _users[settings] = 0
        _users[settings] += 1
        return _drivers[settings]


def give_back(settings: Settings) -> None:
    """Close the driver when nobody else has it."""
    with _lock:
        _users[settings] -= 1
        if _users[settings]:
            return
        driver = _drivers.pop(settings)
        del _users[settings]
    driver.close()

"""Names of local stacks, so that two runs at once in one checkout never share servers.

Invariant: a name is held by a lock on a file, which the system lets go of when its process ends, however it ends.
"""

import fcntl
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHARED_STACK = "TESTS_SHARED_STACK"
"""The environment variable with the name of a stack that is up, for one test run after another."""
FOLDER = Path(__file__).resolve().parent.parent.parent / ".devstack"


@contextmanager
def reserve(prefix: str) -> Iterator[str]:
    """The first of `prefix`, `prefix`-2, ... that no other run of this checkout is using."""
    FOLDER.mkdir(exist_ok=True)
    for number in itertools.count(1):
        name = prefix if number == 1 else f"{prefix}-{number}"
        with (FOLDER / f"{name}.in-use").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield name
            return

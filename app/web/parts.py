"""The services that routes work with, one set a process.

Invariant: nothing is read or connected to before the first request that needs it.
"""

from typing import Annotated, Final

from fastapi import Depends

from app.jobs.wiring import LazyParts

_parts: Final = LazyParts()


def get_parts() -> LazyParts:
    """The services; each is made by the first request that needs it."""
    return _parts


Services = Annotated[LazyParts, Depends(get_parts)]

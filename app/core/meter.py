"""What the work tells of itself, for whoever counts: one small thing that the wiring hands on.

Invariant: it is told once a batch, a call or a level of a walk, never once a segment; told to nobody it costs next to
nothing, and nobody who tells it knows who counts.
"""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Literal

from app.core.endings import Ending

type Step = Literal["claim", "walk", "settle", "acknowledge"]
type Tier = Literal["memory", "shared", "graph"]
type Service = Literal["PostgreSQL", "Neo4j", "SQS", "Dragonfly"]

_NOBODY: Final = nullcontext()


class Meter:
    """Keeps nothing: the default. What keeps it is `app.worker.counts.Counts`. Safe to share between threads."""

    def step(self, step: Step) -> AbstractContextManager[None]:
        """A batch takes this step inside the context."""
        return _NOBODY

    def call(self, service: Service) -> AbstractContextManager[None]:
        """One call of a service inside the context; it has failed when that is left by an exception."""
        return _NOBODY

    def pages(self, tier: Tier, number: int) -> None:
        """So many pages were found there."""

    def settled(self, endings: Sequence[Ending], task_ids: Collection[str]) -> None:
        """PostgreSQL has these endings, of the tasks in `task_ids`."""

    def lost(self, number: int) -> None:
        """So many claims were taken over by others before they had an ending."""


NO_METER: Final = Meter()

"""The services that routes and pages work with, one set a process.

Invariant: nothing is read or connected to before the first request that needs it, and a page needs only the services
whose data it shows: one that is down takes no other page with it.
"""

from typing import Annotated, Final

from fastapi import Depends

from app.config import aws_access, load_settings
from app.db.lag import PostgresLag
from app.db.overview import PostgresOverview
from app.jobs.wiring import COMPLETED_QUEUE, DEAD_LETTERS, LazyParts, made_once
from app.sqs.queue import Queue, make_queue
from app.web.relation_map import MapReader


class WebParts(LazyParts):
    """Safe to share between threads. Raises `ConfigurationError` when a part is first asked for."""

    @made_once
    def overview(self) -> PostgresOverview:
        """What PostgreSQL knows of jobs, segments and workers at a glance."""
        return PostgresOverview(self.database)

    @made_once
    def lag(self) -> PostgresLag:
        """How far the work is behind."""
        return PostgresLag(self.database)

    @made_once
    def completed(self) -> Queue:
        """The queue of completion messages."""
        settings = load_settings(*COMPLETED_QUEUE)
        return make_queue(settings.sqs_completed_queue_url, **aws_access(settings))

    @made_once
    def maps(self) -> MapReader:
        """Relation maps, over pages of this process's own."""
        return MapReader(self.pages, self.graph.read_rows)

    @property
    def known_dead_letters(self) -> Queue | None:
        """The dead-letter queue, where the settings name one."""
        return self.dead_letters if load_settings(*DEAD_LETTERS).sqs_dead_letter_queue_url else None


_parts: Final = WebParts()


def get_parts() -> WebParts:
    """The services; each is made by the first request that needs it."""
    return _parts


Services = Annotated[WebParts, Depends(get_parts)]

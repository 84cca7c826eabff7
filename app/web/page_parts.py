"""What the pages work with beside the parts of `app.jobs.wiring`, each made when a page first needs it.

Invariant: a page needs only the services whose data it shows: one that is down takes no other page with it.
"""

from typing import Final

from app.config import AWS, aws_access, load_settings
from app.db.overview import PostgresOverview
from app.jobs.wiring import COMPLETED_QUEUE, LazyParts, _made_once
from app.sqs.queue import Queue, make_queue
from app.web.relation_map import MapReader

BYTES_A_MEGABYTE: Final = 1_000_000
DEAD_LETTERS: Final = (*AWS, "SQS_DEAD_LETTER_QUEUE_URL")


class PageParts(LazyParts):
    """Safe to share between threads. Raises `ConfigurationError` when a part is first asked for."""

    @_made_once
    def overview(self) -> PostgresOverview:
        """What PostgreSQL knows of jobs, segments and workers at a glance."""
        return PostgresOverview(self.engine)

    @_made_once
    def completed(self) -> Queue:
        """The queue of completion messages."""
        settings = load_settings(*COMPLETED_QUEUE)
        return make_queue(settings.sqs_completed_queue_url, **aws_access(settings))

    @_made_once
    def dead_letters(self) -> Queue | None:
        """The dead-letter queue, where the settings name one."""
        settings = load_settings(*DEAD_LETTERS)
        url = settings.sqs_dead_letter_queue_url
        return make_queue(url, **aws_access(settings)) if url else None

    @_made_once
    def maps(self) -> MapReader:
        """Relation maps, over pages of this process's own."""
        megabytes = load_settings("PAGE_CACHE_MEGABYTES").page_cache_megabytes
        return MapReader(self.graph.make_page_cache(megabytes * BYTES_A_MEGABYTE), self.graph.read_rows)

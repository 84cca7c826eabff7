"""All pages as one router: ``app.include_router(page.router)``.

Invariant: they stand at ``/`` and below ``/ui/``, so that no address of the API is theirs.
"""

from fastapi import APIRouter

from app.web import page_jobs, page_login, page_map, page_queues

router = APIRouter()
for each in (page_login, page_map, page_jobs, page_queues):
    router.include_router(each.router)

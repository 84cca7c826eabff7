"""All routes of the API in one router.

Invariant: a route asks for the token unless it is about health.
"""

from typing import Final

from fastapi import APIRouter, Depends

from app.web import api_health, api_jobs, api_live, api_metrics, api_relation, openapi
from app.web.auth import require_token

router: Final = APIRouter()
router.include_router(api_health.router)
for guarded in (api_metrics.router, api_jobs.router, api_live.router, api_relation.router, openapi.router):
    router.include_router(guarded, dependencies=[Depends(require_token)])

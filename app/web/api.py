"""All routes of the API in one router."""

from typing import Final

from fastapi import APIRouter

from app.web import api_health, api_jobs, api_relation

router: Final = APIRouter()
router.include_router(api_health.router)
router.include_router(api_jobs.router)
router.include_router(api_relation.router)

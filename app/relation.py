"""The door of the optional HTTP side, over the same code as the command line: ``uvicorn app.relation:app``.

Invariant: importing this module reads no setting and connects to nothing; the routes are in app/web/.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app.config import load_settings
from app.logs import setup_logging
from app.web import api, auth, counting, openapi, page, problems
from app.web.parts import get_parts
from app.web.sending import get_sender


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[None]:
    if not logging.getLogger().handlers:
        settings = load_settings("LOG_LEVEL", "LOG_FORMAT")
        setup_logging(settings.log_level, settings.log_format)
    auth.announce()
    yield
    get_sender().close()
    get_parts().close()


# No page that shows the routes: FastAPI's own loads scripts from elsewhere, into the origin that the token opens.
app = FastAPI(title=openapi.TITLE, lifespan=_lifespan, openapi_url=None, docs_url=None, redoc_url=None)
app.include_router(api.router)
app.include_router(page.router)
problems.install(app)
app.add_middleware(auth.LocalOnly)
# The last that is added is the outermost: it counts what the others turn away, too.
app.add_middleware(counting.Counted, requests=counting.get_requests())

"""What the API says of itself: ``/openapi.json``.

Invariant: an error is described as what it is, a problem of RFC 9457 in its own media type.
"""

from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse

from app.web.problems import MEDIA_TYPE, Problem

router: Final = APIRouter()

TITLE: Final = "Segment Relationship Processor"
VERSION: Final = "1"
PROBLEM: Final = f"#/components/schemas/{Problem.__name__}"


@router.get("/openapi.json", include_in_schema=False)
def read_openapi(request: Request) -> JSONResponse:
    """This service's routes, as OpenAPI 3.1."""
    return JSONResponse(describe(request.app))


def describe(app: FastAPI) -> dict[str, Any]:
    """The document; made once."""
    if app.openapi_schema is None:
        document = get_openapi(title=TITLE, version=VERSION, routes=app.routes)
        for path in document["paths"].values():
            for operation in path.values():
                for response in operation["responses"].values():
                    _name_media_type(response)
        app.openapi_schema = document
    return app.openapi_schema


def _name_media_type(response: dict[str, Any]) -> None:
    content = response.get("content", {})
    if content.get("application/json", {}).get("schema", {}).get("$ref") == PROBLEM:
        content[MEDIA_TYPE] = content.pop("application/json")

"""Errors as problem details (RFC 9457), for every route of the process.

Invariant: `detail` is one text that names the field and the id, as it was published before the other members were
added; no answer holds a secret, a statement or a traceback.
"""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

from app.core.jobs import ConflictError, NotFoundError
from app.errors import ConfigurationError, OutageError, PermanentError, ProcessorError, TransientError
from app.logs import one_line

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = 5
METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
SETTINGS_ARE_WRONG: Final = "the service's settings are not usable; its log says why"

type Responses = dict[int | str, dict[str, Any]]


class WrongField(BaseModel):
    """A part of the request that was not accepted."""

    field: str = Field(examples=["end"])
    reason: str = Field(examples=["must be greater than or equal to 0"])


class Problem(BaseModel):
    """Why a request was not answered as asked (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "about:blank",
                "title": "Not Found",
                "status": 404,
                "detail": "there is no job 550e8400-e29b-41d4-a716-446655440000",
                "instance": "/jobs/550e8400-e29b-41d4-a716-446655440000",
            }
        }
    )

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    """The path that was asked for."""
    errors: list[WrongField] | None = None
    """Of a request that was not understood: each field that is wrong."""


class FieldError(PermanentError):
    """A value that is of the right type and still cannot be: a span outside its text."""

    def __init__(self, field: str, reason: str) -> None:
        """`field` as the request calls it."""
        super().__init__(f"{field} {reason}")
        self.wrong = WrongField(field=field, reason=reason)


_WORDS: Final[Mapping[int, str]] = {
    401: "The token is missing or wrong.",
    403: "Without API_TOKEN only clients on the server's own machine are answered.",
    404: "There is no such text or job.",
    409: "The job is in a state in which this cannot be done.",
    422: "A part of the request is not what it must be; `errors` names each.",
    500: "The service's settings are wrong, or it has an error; its log says more.",
    503: "A service that this needs does not answer; `detail` names it.",
}
GUARDED: Final = (401, 403)
"""What any route that asks for the token may answer."""


def may_answer(*statuses: int) -> Responses:
    """For a route's `responses`: these problems, and those that any route may answer."""
    return {
        status: {"model": Problem, "description": _WORDS[status]}
        for status in sorted({*statuses, *GUARDED, 422, 500, 503})
    }


def answer(
    request: Request,
    status: int,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[WrongField] | None = None,
) -> JSONResponse:
    """The answer to `request` that tells of a problem."""
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=request.url.path,
        errors=list(errors) if errors else None,
    )
    extra = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == 503 else {}
    return JSONResponse(problem.model_dump(exclude_none=True), status, {**extra, **(headers or {})}, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Let `app` answer every error as a problem."""
    app.add_exception_handler(ProcessorError, _explain_ours)
    app.add_exception_handler(HTTPException, _explain_http)
    app.add_exception_handler(RequestValidationError, _explain_fields)
    app.add_exception_handler(Exception, _explain_bug)


def status_of(error: Exception) -> int:
    """The status that says what kind of error it is."""
    match error:
        case NotFoundError():
            return 404
        case ConflictError():
            return 409
        case OutageError() | TransientError():
            return 503
        case PermanentError():
            return 422
        case _:
            return 500


def _explain_ours(request: Request, error: Exception) -> JSONResponse:
    status = status_of(error)
    if status >= 500:
        log.error("%s %s failed: %s", request.method, one_line(request.url.path), one_line(str(error)))
    if isinstance(error, ConfigurationError):
        return answer(request, status, SETTINGS_ARE_WRONG)
    return answer(request, status, str(error), errors=[error.wrong] if isinstance(error, FieldError) else None)


def _explain_http(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    detail, headers = error.detail, error.headers
    if error.status_code == 404 and detail == HTTPStatus(404).phrase:
        detail = f"there is nothing at {request.url.path!r:.200}; /openapi.json lists what there is"
    if error.status_code == 405:
        detail = f"{request.method!r:.20} is not for {request.url.path!r:.200}; the header Allow lists what is"
        headers = {"Allow": ", ".join(sorted(_methods_at(request)))}
    return answer(request, error.status_code, detail, headers=headers)


def _methods_at(request: Request) -> set[str]:
    """Of every route that the path fits: an id may be anything, so there may be several."""
    routes: Sequence[BaseRoute] = request.app.routes
    return {
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    }


def _explain_fields(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    wrong = [WrongField(field=_field(item["loc"]), reason=_reason(item)) for item in error.errors()]
    return answer(request, 422, "; ".join(f"{each.field} {each.reason}" for each in wrong), errors=wrong)


def _field(location: Sequence[object]) -> str:
    """Without the place that it was in: path, query, header or body."""
    return ".".join(str(part) for part in location[1:]) or str(location[0])


def _reason(item: Mapping[str, Any]) -> str:
    if item["type"] == "missing":
        return "is missing"
    message = str(item["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return message[:1].lower() + message[1:]


def _explain_bug(request: Request, _error: Exception) -> JSONResponse:
    """The server logs the traceback itself."""
    return answer(request, 500, "the service has an error of its own; its log says more")

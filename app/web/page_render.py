"""How a page is made: a template, its headers, and words for what went wrong.

Invariant: what comes from outside is escaped, control characters too, wherever a template puts it; no page loads or
runs anything but our own style sheet; and whatever a page's route raises of ours is answered by a page in words.
"""

import logging
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from app.core.jobs import ConflictError, NotFoundError
from app.errors import ConfigurationError, OutageError, PermanentError, ProcessorError, TransientError
from app.logs import one_line
from app.web import session
from app.web.auth import is_token_set
from app.web.page_words import FILTERS

log = logging.getLogger(__name__)

HERE: Final = Path(__file__).parent
RETRY_AFTER_SECONDS: Final = 5
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: forms would then be sent with the origin null, and a page of ours not be told from a stranger's.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
FORM_TOKEN: Final = Markup('<input type="hidden" name="form_token" value="{}">')
HEADINGS: Final = {
    303: "See there",
    403: "Not from this page",
    404: "Not found",
    409: "Not as it stands",
    422: "Not understood",
    500: "Not set up",
    503: "Not available now",
}


class LoginError(ProcessorError):
    """Nobody has given the token."""


class ForeignFormError(ProcessorError):
    """A form that no page of this session has sent."""


class InputError(PermanentError):
    """A value of a form or an address that makes no sense; the message names it."""


def _escape_controls(value: Any) -> Any:
    """HTML has no place for control characters; ids may hold any."""
    return one_line(value) if type(value) is str else value


def link(path: str, **query: object) -> str:
    """An address of ours; what is None is left out."""
    given = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


_templates: Final = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_escape_controls,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= FILTERS
_templates.globals |= {"link": link}


def render(request: Request, template: str, status_code: int = 200, **values: object) -> Response:
    """The page. Whoever has no session gets one where no token is asked for, since its forms need one."""
    known = session.read_session(request)
    fresh = None
    is_guarded = is_token_set()
    # Not with a refusal: what was sent from elsewhere came without the browser's cookie, and would replace it.
    if known is None and not is_guarded and status_code < 400:
        fresh = session.new_session()
        known = fresh.rpartition(".")[0]
    form = FORM_TOKEN.format(session.form_token(known)) if known else ""
    shared: Mapping[str, object] = {
        "path": request.url.path,
        "form_token": form,
        "can_log_out": known is not None and is_guarded,
        "is_known": known is not None or not is_guarded,
    }
    response = HTMLResponse(_templates.get_template(template).render({**shared, **values}), status_code, HEADERS)
    if fresh is not None:
        session.keep_session(request, response, fresh)
    return response


class PageRoute(APIRoute):
    """A route whose failures are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See `APIRoute`."""
        answer = super().get_route_handler()

        async def answer_in_words(request: Request) -> Response:
            try:
                return await answer(request)
            except RequestValidationError as error:
                return show_error(request, InputError(_describe(error)))
            except ProcessorError as error:
                return show_error(request, error)

        return answer_in_words


def show_error(request: Request, error: ProcessorError) -> Response:
    """What went wrong, in words, under the status that says the same."""
    if isinstance(error, LoginError):
        where = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(link("/ui/login", next=where if request.method == "GET" else "/"), 303, HEADERS)
    status = _status_of(error)
    words = str(error)
    if isinstance(error, ConfigurationError):
        words = "The service's settings are not usable; its log says why."
    if status >= 500:
        log.error("%s %s failed: %s", request.method, one_line(request.url.path), one_line(str(error)))
    try:
        response = render(request, "message.html", status, **_words(request, status, words))
    except ConfigurationError:  # of the token: no page can tell whether it may be shown
        return Response("The service's settings are not usable; its log says why.", 500, HEADERS, "text/plain")
    if status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def _status_of(error: ProcessorError) -> int:
    match error:
        case NotFoundError():
            return 404
        case ConflictError():
            return 409
        case ForeignFormError():
            return 403
        case OutageError() | TransientError():
            return 503
        case PermanentError():
            return 422
    return 500


def _describe(error: RequestValidationError) -> str:
    reasons = [f"{item['loc'][-1]}: {item['msg']}" for item in error.errors()]
    return "; ".join(reasons)


def _words(request: Request, status: int, words: str) -> dict[str, object]:
    can_repeat = request.method == "GET"
    return {"heading": HEADINGS[status], "words": words, "status": status, "can_repeat": can_repeat}

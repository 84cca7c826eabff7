"""The login, and what every page asks before it shows anything.

Invariant: with `API_TOKEN` nothing but the login, the style sheet and the icon is shown to who has not given the token,
and nothing is changed by a form that did not come from a page of the same session.
"""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import FileResponse, RedirectResponse

from app.web import session
from app.web.auth import is_token_set, token_matches
from app.web.page_render import HEADERS, HERE, ForeignFormError, LoginError, PageRoute, render

STATIC_SECONDS: Final = 300


def asks_for_session(request: Request) -> None:
    """Raise `LoginError` unless there is a session, or no token to ask for."""
    if is_token_set() and session.read_session(request) is None:
        raise LoginError("Give the token first.")


def asks_for_own_form(request: Request, form_token: Annotated[str, Form()] = "") -> None:
    """Raise `ForeignFormError` unless a page of this session sent the form."""
    if not session.may_post(request, session.read_session(request), form_token):
        raise ForeignFormError("This form is too old, or no page of this session sent it. Open the page again.")


router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/ui/login")
def ask_token(request: Request, next: str = "/") -> Response:
    """The login form; without a token to ask for, the jobs."""
    if not is_token_set() or session.read_session(request):
        return RedirectResponse(_own(next), 303, HEADERS)
    return render(request, "login.html", next=_own(next), wrong=False)


@router.post("/ui/login")
def log_in(
    request: Request,
    token: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "/",
) -> Response:
    """A session for who knows the token."""
    if not session.is_own_page(request):
        raise ForeignFormError("This form was not sent from this page.")
    if not is_token_set():
        return RedirectResponse("/", 303, HEADERS)
    if not token_matches(token):
        return render(request, "login.html", 403, next=_own(next), wrong=True)
    response = RedirectResponse(_own(next), 303, HEADERS)
    session.keep_session(request, response, session.new_session())
    return response


@router.post("/ui/logout", dependencies=[Depends(asks_for_own_form)])
def log_out() -> Response:
    """Forget the session in this browser."""
    response = RedirectResponse("/ui/login", 303, HEADERS)
    session.end_session(response)
    return response


@router.get("/ui/style.css")
def read_style() -> Response:
    """The one style sheet."""
    return _static("style.css", "text/css")


@router.get("/ui/icon.svg")
def read_icon() -> Response:
    """What a browser shows beside the title."""
    return _static("icon.svg", "image/svg+xml")


def _static(name: str, kind: str) -> Response:
    headers = HEADERS | {"Cache-Control": f"max-age={STATIC_SECONDS}"}
    return FileResponse(HERE / "static" / name, media_type=kind, headers=headers)


def _own(address: str) -> str:
    """A path of ours, or the jobs: nobody is sent elsewhere by a link to the login."""
    is_ours = address.startswith("/") and not address.startswith("//") and address.isprintable() and "\\" not in address
    return address if is_ours else "/"

"""Who may look: the session cookie of somebody who gave the token, and the tokens of the pages' forms.

Invariant: nothing is kept here. A session is a cookie that only a holder of `API_TOKEN` can have got: it is signed with
a key made from the token, so another token ends all sessions, and every process of a deployment knows them. A form is
taken only with the token that was made for its session, and only from our own pages.

Without `API_TOKEN` there is nothing to sign with, and only this machine is answered; there a form is told from a
stranger's by the cookie, which is `SameSite=Strict`, and by where the browser says that it comes from.
"""

import hmac
import secrets
import time
from functools import cache
from hashlib import blake2b
from typing import Final
from urllib.parse import urlsplit

from fastapi import Request, Response

from app.config import load_settings

COOKIE: Final = "segments_session"
SESSION_SECONDS: Final = 12 * 3600


def new_session() -> str:
    """The value of a new session's cookie."""
    payload = f"{int(time.time()) + SESSION_SECONDS}.{secrets.token_urlsafe(16)}"
    return f"{payload}.{_sign('session', payload)}"


def read_session(request: Request) -> str | None:
    """The request's session, if its cookie is one of ours and has not ended."""
    payload, _, signature = request.cookies.get(COOKIE, "").rpartition(".")
    expires = payload.partition(".")[0]
    if not (expires.isascii() and expires.isdigit() and len(expires) <= 12):
        return None
    is_ours = hmac.compare_digest(_sign("session", payload).encode(), signature.encode("utf-8", "replace"))
    return payload if is_ours and int(expires) > time.time() else None


def form_token(session: str) -> str:
    """What the forms of this session carry."""
    return _sign("form", session)


def may_post(request: Request, session: str | None, token: str) -> bool:
    """Whether a form with this token comes from a page of ours, in this session."""
    if session is None or not hmac.compare_digest(form_token(session).encode(), token.encode("utf-8", "replace")):
        return False
    return is_own_page(request)


def is_own_page(request: Request) -> bool:
    """Whether the browser says, as far as it says anything, that one of our own pages sent this."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def keep_session(request: Request, response: Response, value: str) -> None:
    """Give the browser its cookie."""
    is_https = request.url.scheme == "https"
    response.set_cookie(
        COOKIE, value, max_age=SESSION_SECONDS, path="/", secure=is_https, httponly=True, samesite="strict"
    )


def end_session(response: Response) -> None:
    """Take the cookie away."""
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")


def _sign(purpose: str, text: str) -> str:
    key = blake2b(_token().encode(), digest_size=32, person=b"srp session").digest()
    return hmac.digest(key, f"{purpose}:{text}".encode("utf-8", "replace"), "sha256").hex()


@cache
def _token() -> str:
    """Read when it is first needed; empty when none is set. Raises `ConfigurationError`."""
    return load_settings("API_TOKEN").api_token or ""

"""Who is answered: whoever has API_TOKEN or, while none is set, clients on the server's own machine.

Invariant: no route but those about health is open to strangers. Without a token nothing that came through a proxy, or
that a browser sends for a page from elsewhere, counts as local. A token is compared in constant time and never logged.
"""

import hashlib
import hmac
import ipaddress
import logging
from functools import cache
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from app.config import get
from app.errors import ConfigurationError
from app.web.problems import answer

log = logging.getLogger(__name__)

OPEN_PATHS: Final = frozenset({"/health/live", "/health/ready", "/healthz"})
PROXY_HEADERS: Final = ("forwarded", "via", "x-forwarded-for", "x-real-ip")
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
ADVISED_CHARACTERS: Final = 16
CHALLENGE: Final = 'Bearer realm="segments"'
LOCAL_ONLY: Final = (
    "API_TOKEN is not set, so only clients on the server's own machine are answered ({reason}); to open the server to"
    " others, set API_TOKEN in its environment and send it as: Authorization: Bearer TOKEN"
)

_bearer: Final = HTTPBearer(auto_error=False, description="The value of API_TOKEN; not asked for while none is set.")


@cache
def _token_digest() -> bytes | None:
    """Of the token; None while none is set. Raises `ConfigurationError`."""
    token: str | None = get("API_TOKEN")
    return None if token is None else _digest(token)


def forget_token() -> None:
    """Read API_TOKEN again when it is next needed."""
    _token_digest.cache_clear()


def is_token_set() -> bool:
    """Whether a token is asked for. Raises `ConfigurationError` for one that can't be sent."""
    return _token_digest() is not None


def token_matches(text: str) -> bool:
    """Whether `text` is the token, compared in constant time; never while none is set."""
    expected = _token_digest()
    return expected is not None and hmac.compare_digest(expected, _digest(text))


def _digest(text: str) -> bytes:
    """Of the same length for every text, so that the comparison does not tell the token's."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def require_token(
    request: Request, _documented: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
) -> None:
    """A dependency of each route that is not open: 401 without the token, if one is set."""
    if not has_token(request.headers) and is_token_set():
        raise _unauthorised(request.headers)


def has_token(headers: Headers) -> bool:
    """Whether a request with these headers carries the token."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and token_matches(token.strip())


def _unauthorised(headers: Headers) -> HTTPException:
    if "authorization" in headers:
        detail, error = "the token is not the server's API_TOKEN", ', error="invalid_token"'
    else:
        detail, error = "a token is needed; send it as: Authorization: Bearer TOKEN", ""
    return HTTPException(401, detail, {"WWW-Authenticate": CHALLENGE + error})


def may_know_more(request: Request) -> bool:
    """Whether who asks an open route would be answered by the others, too."""
    return has_token(request.headers) if is_token_set() else why_not_local(request) is None


class LocalOnly:
    """Middleware: while no token is set, everything but health is for clients on this machine."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with 403."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS and not is_token_set():
            request = Request(scope)
            if reason := why_not_local(request):
                await answer(request, 403, LOCAL_ONLY.format(reason=reason))(scope, receive, send)
                return
        await self._app(scope, receive, send)


def why_not_local(request: Request) -> str | None:
    """What speaks against the client's being on this machine and meaning what it asks; None: nothing."""
    host = request.client.host if request.client else None
    if host is None or not _is_loopback(host):
        return f"you come from {host or 'a socket without an address'}"
    if found := [name for name in PROXY_HEADERS if name in request.headers]:
        return f"this request came through a proxy: it has the header {found[0]}"
    if not _is_loopback(_host_of(f"//{request.headers.get('host', '')}")):
        return "the header Host names another machine"
    if request.method not in SAFE_METHODS and not _is_of_this_machine(request.headers):
        return "a browser sends this for a page from elsewhere"
    return None


def _is_of_this_machine(headers: Headers) -> bool:
    """Whether no browser says that a page from elsewhere has asked for it."""
    origin = headers.get("origin")
    if origin is None:
        return headers.get("sec-fetch-site") != "cross-site"
    return _is_loopback(_host_of(origin))


def _host_of(url: str) -> str:
    """Empty when none can be read."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def announce() -> None:
    """Say in the log who is answered. Raises `ConfigurationError`."""
    try:
        token: str | None = get("API_TOKEN")
    except ConfigurationError as error:
        log.error("%s", error)
        raise
    if token is None:
        log.warning(
            "API_TOKEN is not set: only clients on this machine are answered, all others with 403 (but for health)"
        )
    elif len(token) < ADVISED_CHARACTERS:
        log.warning("API_TOKEN has only %d characters: whoever guesses it may do everything", len(token))
    else:
        log.info("API_TOKEN is set: whoever sends it is answered")

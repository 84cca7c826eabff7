"""A POST that is signed, sent and answered by libcurl: for calls that every batch pays for.

Invariant: what goes out is what botocore would send: signed alike (Signature Version 4) with its credentials, through
the environment's proxies, with its CA bundle; and what goes wrong is raised as botocore's own error. libcurl does it in
C and outside of the interpreter's lock, for a quarter of the processor time that urllib3 takes.

Each thread keeps a connection of its own. libcurl repeats by itself only what was sent on a kept connection that the
server closes before it has answered a byte.
"""

import os
import threading
from io import BytesIO
from typing import Any, Final, NamedTuple

import pycurl
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import (
    BotoCoreError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)
from botocore.httpsession import get_cert_path, mask_proxy_url
from botocore.session import Session
from botocore.utils import get_environ_proxies

USER_AGENT: Final = "segment-relationship-processor"
_DATE: Final = b"\r\ndate: "
_UNREACHED: Final = frozenset({pycurl.E_COULDNT_RESOLVE_HOST, pycurl.E_COULDNT_CONNECT})
_REFUSED_TLS: Final = frozenset(
    {pycurl.E_SSL_CONNECT_ERROR, pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_CACERT_BADFILE}
)


class Response(NamedTuple):
    """`date`: when the server answered, by its own clock, in the form of HTTP; empty when it does not say."""

    status: int
    content: bytes
    date: str


class SignedPost:
    """To one endpoint. Safe to share between threads."""

    def __init__(
        self, url: str, region: str, session: Session, *, connect_seconds: float, answer_seconds: float
    ) -> None:
        """`session`: whose CA bundle is used. `answer_seconds`: for the whole of a call, a long poll included."""
        self._url = url
        self._scope = f"aws:amz:{region}:sqs"
        self._proxy = get_environ_proxies(url).get(url.partition(":")[0], "")
        bundle: Any = session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE", True)
        self._ca_bundle = get_cert_path(bundle)
        self._connect_ms = int(connect_seconds * 1000)
        self._answer_ms = int(answer_seconds * 1000)
        self._of_thread = threading.local()

    def send(self, target: str, body: bytes, credentials: ReadOnlyCredentials) -> Response:
        """Call the operation `target` (``AmazonSQS.ReceiveMessage``). Raises `BotoCoreError`."""
        handle = self._handle()
        headers = [f"X-Amz-Target: {target}", "Content-Type: application/x-amz-json-1.0", "Accept:", "Expect:"]
        if credentials.token:
            headers.append(f"X-Amz-Security-Token: {credentials.token}")
        content, head = BytesIO(), BytesIO()
        handle.setopt(pycurl.USERNAME, credentials.access_key)
        handle.setopt(pycurl.PASSWORD, credentials.secret_key)
        handle.setopt(pycurl.HTTPHEADER, headers)
        handle.setopt(pycurl.POSTFIELDS, body)
        handle.setopt(pycurl.WRITEDATA, content)
        handle.setopt(pycurl.HEADERFUNCTION, head.write)
        try:
            handle.perform()
        except pycurl.error as error:
            raise self._translated(error, handle.getinfo(pycurl.REQUEST_SIZE) > 0) from error
        return Response(handle.getinfo(pycurl.RESPONSE_CODE), content.getvalue(), _date(head.getvalue()))

    def _handle(self) -> Any:
        """The calling thread's; it ends with the thread."""
        handle = getattr(self._of_thread, "handle", None)
        if handle is None:
            handle = self._of_thread.handle = pycurl.Curl()
            handle.setopt(pycurl.URL, self._url)
            handle.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
            handle.setopt(pycurl.AWS_SIGV4, self._scope)
            handle.setopt(pycurl.USERAGENT, USER_AGENT)
            handle.setopt(pycurl.PROXY, self._proxy)
            handle.setopt(pycurl.NOPROXY, "")
            handle.setopt(pycurl.CAINFO, self._ca_bundle)
            handle.setopt(pycurl.CONNECTTIMEOUT_MS, self._connect_ms)
            handle.setopt(pycurl.TIMEOUT_MS, self._answer_ms)
            handle.setopt(pycurl.TCP_KEEPALIVE, 1)
            handle.setopt(pycurl.NOSIGNAL, 1)  # signals are the main thread's
        return handle

    def _translated(self, error: pycurl.error, was_sent: bool) -> BotoCoreError:
        code = error.args[0]
        if code == pycurl.E_OPERATION_TIMEDOUT:
            kind = ReadTimeoutError if was_sent else ConnectTimeoutError
            return kind(endpoint_url=self._url, error=error)
        if code in _UNREACHED:
            return EndpointConnectionError(endpoint_url=self._url, error=error)
        if code == pycurl.E_COULDNT_RESOLVE_PROXY:
            return ProxyConnectionError(proxy_url=mask_proxy_url(self._proxy), error=error)
        if code in _REFUSED_TLS:
            return SSLError(endpoint_url=self._url, error=error)
        return ConnectionClosedError(endpoint_url=self._url, error=error)


def _date(head: bytes) -> str:
    """Of the last answer in `head`: a proxy's own stands before it."""
    at = head.lower().rfind(_DATE) + len(_DATE)
    return head[at : head.find(b"\r", at)].decode("ascii", "replace") if at >= len(_DATE) else ""

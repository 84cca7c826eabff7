"""A small HTTP server for those who watch the worker: ``/metrics``, ``/health/live``, ``/health/ready``.

Invariant: it answers GET and HEAD from memory, on threads of its own, a bounded number at a time; nothing that is sent
to it changes anything, and no client, however slow, holds up a lane.
"""

import json
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Final, NamedTuple

from app.errors import ConfigurationError
from app.worker.health import Health

log = logging.getLogger(__name__)

MOST_AT_ONCE: Final = 16
"""Clients; one more is hung up on."""
CLIENT_SECONDS: Final = 5.0
"""How long a client may take to say what it wants, or to take the answer."""


class Answer(NamedTuple):
    """What goes back."""

    status: int
    content_type: str
    body: bytes


def say_health(ask: Callable[[], Health]) -> Callable[[], Answer]:
    """The answer to a probe: 200 when all is well, else 503, with JSON that says why."""

    def answer() -> Answer:
        is_well, details = ask()
        return _say_json(200 if is_well else 503, details)

    return answer


class WatchServer(ThreadingHTTPServer):
    """`routes`: path to what makes its answer. Listens once it is made; answers from `start` to `close`."""

    daemon_threads = True

    def __init__(self, host: str, port: int, routes: Mapping[str, Callable[[], Answer]]) -> None:
        """Raises `ConfigurationError` that names METRICS_PORT when nobody can listen there."""
        self.routes = routes
        self._free = threading.BoundedSemaphore(MOST_AT_ONCE)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise ConfigurationError(
                f"METRICS_PORT: can't listen on port {port} of {host}: {error.strerror or error}."
                " Choose another METRICS_PORT, or METRICS_HOST; workers on one machine each need a port of their own."
            ) from error

    def start(self) -> None:
        """Answer from now on, beside the caller."""
        threading.Thread(target=self.serve_forever, name="watch-server", daemon=True).start()
        host, port = self.server_address[:2]
        shown = f"[{host!s}]" if ":" in str(host) else host
        log.info("Serving %s on http://%s:%d", ", ".join(self.routes), shown, port)

    def close(self) -> None:
        """Stop answering; the port is free."""
        self.shutdown()
        self.server_close()

    def server_bind(self) -> None:
        """Without the look-up of this machine's name, which may take long and is not used."""
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """On a thread of its own, while there is one to give."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """What that thread does."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that closes its connection early is not logged."""
        log.debug("A client of the watch server failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """One request a connection."""

    timeout = CLIENT_SECONDS
    server: WatchServer

    def do_GET(self) -> None:
        self._send(self._answer())

    def do_HEAD(self) -> None:
        self._send(self._answer(), with_body=False)

    def version_string(self) -> str:
        """No server name or version in the headers."""
        return "segment-relationship-processor"

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("%s", format % args)

    def _answer(self) -> Answer:
        path = self.path.partition("?")[0]
        make = self.server.routes.get(path)
        if make is None:
            return _say_json(404, {"error": "there is nothing here", "paths": list(self.server.routes)})
        try:
            return make()
        except Exception:
            log.exception("%s could not be answered", path)
            return _say_json(500, {"error": "a bug; the worker's log tells more"})

    def _send(self, answer: Answer, *, with_body: bool = True) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if with_body:
            self.wfile.write(answer.body)


def _say_json(status: int, details: Mapping[str, Any]) -> Answer:
    return Answer(status, "application/json", json.dumps(details).encode() + b"\n")

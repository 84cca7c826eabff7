"""A server that answers HTTP as a script says and keeps what it was asked: for what a real SQS does only rarely."""

import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

CUT: Final = 0
"""Instead of a status: the connection is closed without an answer."""


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    path: str
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        """The JSON in it."""
        return json.loads(self.raw)

    @property
    def is_lean(self) -> bool:
        """boto3 numbers its calls."""
        return "amz-sdk-invocation-id" not in {name.lower() for name in self.headers}


@dataclass
class Stub:
    """`script`: status and body of the next answers; when it is used up, 200 and ``{}``."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    script: list[tuple[int, dict[str, Any]]] = field(default_factory=list)


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Stub]:
    """A stub on a port of its own, with `tls` for HTTPS."""
    stub = Stub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            stub.asked.append(Asked(self.path, dict(self.headers.items()), body))
            status, answer = stub.script.pop(0) if stub.script else (200, {})
            if status == CUT:
                self.close_connection = True
                return
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.0")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    stub.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

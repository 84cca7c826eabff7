"""The API against requests that nobody thought of: made from its own OpenAPI document, always the same ones.

More of them: ``schemathesis run http://127.0.0.1:8000/openapi.json -n 1000``.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx

from devstack.families import SMALL_FAMILY_PATH, Family
from tests.support.engine import Engine
from tests.support.jobs import assert_true
from tests.support.worker import Worker

TOKEN = "correct-horse-battery-staple"
REQUESTS_A_ROUTE = 15
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "use_after_free",
    "ignored_auth",
)
"""Left out: that whatever the document allows is accepted. No document can say which cursors were given, nor how far a
text reaches."""


def test_no_request_ends_in_a_server_error_or_an_answer_that_is_not_described(
    servers: Callable[..., tuple[Worker, httpx.Client]],
    environment: dict[str, str],
    engine: Engine,
    load_graph: Callable[[Family], None],
    tmp_path: Path,
) -> None:
    load_graph(Family.from_json(SMALL_FAMILY_PATH))
    server, client = servers({**environment, "API_TOKEN": TOKEN})
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{client.base_url}/openapi.json"),
            *("--header", f"Authorization: Bearer {TOKEN}"),
            *("--checks", ",".join(CHECKS)),
            *("--max-examples", str(REQUESTS_A_ROUTE), "--generation-deterministic", "--no-color"),
        ],
        cwd=tmp_path,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in server.log()
    assert_true(engine)

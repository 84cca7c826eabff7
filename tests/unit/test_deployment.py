"""The files that deploy it: they parse, set nothing but settings, and give a worker time to stop."""

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from app.config import Settings
from ops import healthcheck
from scripts.reference.code import ROOT

OF_OTHERS: Final = {"PORT", "PYTHON_VERSION"}
"""uvicorn's and the health check's; Render's."""
SETTINGS: Final = {name.upper() for name in Settings.model_fields}
REQUIRED: Final = {name.upper() for name, field in Settings.model_fields.items() if field.is_required()}
GRACE_SECONDS: Final = Settings.model_fields["shutdown_grace_seconds"].default
UNIT: Final = ROOT / "ops" / "systemd" / "segment-worker.service"


def read_yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def environments() -> Iterator[tuple[str, set[str]]]:
    """Service to the variables that it sets, of those that run our code."""
    for service in read_yaml("render.yaml")["services"]:
        yield f"render.yaml {service['name']}", {variable["key"] for variable in service["envVars"]}
    for name, service in read_yaml("compose.yaml")["services"].items():
        if "build" in service:
            yield f"compose.yaml {name}", set(service["environment"])


@pytest.mark.parametrize(("service", "variables"), list(environments()))
def test_every_variable_is_a_setting_and_no_required_one_is_left_out(service: str, variables: set[str]) -> None:
    assert variables - SETTINGS - OF_OTHERS == set()
    assert set() == REQUIRED - variables


def test_both_files_have_a_worker_migrations_and_the_http_side() -> None:
    worker, web = read_yaml("render.yaml")["services"]
    assert (worker["type"], worker["startCommand"]) == ("worker", "python -m app.main")
    assert web["type"] == "web"
    assert {each["preDeployCommand"] for each in (worker, web)} == {"alembic upgrade head"}
    services = read_yaml("compose.yaml")["services"]
    assert services["migrate"]["command"] == ["alembic", "upgrade", "head"]
    assert services["worker"]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert services["web"]["profiles"] == ["web"]


def test_what_the_http_side_takes_from_the_worker_is_there() -> None:
    worker, web = read_yaml("render.yaml")["services"]
    given = {variable["key"] for variable in worker["envVars"]}
    for variable in web["envVars"]:
        if source := variable.get("fromService"):
            assert (source["name"], source["type"]) == (worker["name"], worker["type"])
            assert source["envVarKey"] == variable["key"]
            assert variable["key"] in given


def test_a_worker_gets_more_time_to_stop_than_its_grace() -> None:
    assert read_yaml("render.yaml")["services"][0]["maxShutdownDelaySeconds"] > GRACE_SECONDS
    assert int(read_yaml("compose.yaml")["services"]["worker"]["stop_grace_period"].removesuffix("s")) > GRACE_SECONDS
    found = re.search(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    assert int(found[1]) > GRACE_SECONDS


def test_the_queues_that_compose_makes_are_those_of_the_settings() -> None:
    document = read_yaml("compose.yaml")
    made = document["configs"]["queues"]["content"]
    variables = document["x-app"]["environment"]
    for name in ("SQS_QUEUE_URL", "SQS_COMPLETED_QUEUE_URL", "SQS_DEAD_LETTER_QUEUE_URL"):
        assert re.search(rf"^  {variables[name].rsplit('/', 1)[1]} {{", made, re.MULTILINE), name


def test_the_image_holds_what_the_dockerfile_copies() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"}
    copied = {path for line in re.findall(r"^COPY (?!--)(.+)$", text, re.MULTILINE) for path in line.split()[:-1]}
    assert copied == sent
    assert all((ROOT / path).exists() for path in copied)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not there")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """With a folder in which its commands exist."""
    folder = tmp_path / "checkout" / ".venv" / "bin"
    folder.mkdir(parents=True)
    for command in ("python", "alembic"):
        (folder / command).touch(0o755)
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text(encoding="utf-8").replace("/srv/segment-worker", str(tmp_path / "checkout")))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, None),
        ({"PORT": "", "METRICS_PORT": "0"}, None),
        ({"METRICS_PORT": "9100"}, "http://127.0.0.1:9100/health/live"),
        ({"PORT": "8000", "METRICS_PORT": "9100"}, "http://127.0.0.1:8000/health/live"),
    ],
)
def test_the_health_check_asks_what_runs(environment: dict[str, str], url: str | None) -> None:
    assert healthcheck.choose_url(environment) == url


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_tells_an_answer_from_a_refusal(
    monkeypatch: pytest.MonkeyPatch, status: int, code: int
) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health/live" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        monkeypatch.setenv("PORT", str(server.server_port))
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert healthcheck.main() == code
        thread.join()


def test_the_health_check_says_where_nobody_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PORT", "1")
    assert healthcheck.main() == 1
    assert "http://127.0.0.1:1/health/live" in capsys.readouterr().err

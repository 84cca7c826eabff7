"""Jobs and health over HTTP, on the real services and a real socket."""

import re
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.db.jobs import PostgresJobs
from app.db.postgres import run
from app.relation import app
from app.web.openapi import describe
from app.web.paging import encode_cursor
from tests.support.engine import Engine
from tests.support.jobs import claimed, complete, fail, make_job, statuses
from tests.support.services import Queues, base_environment, receive_all
from tests.support.worker import Worker, wait_until

CLOSED_PORT = 1
UNKNOWN = str(uuid.uuid4())


def all_pages(client: httpx.Client, path: str, name: str, **parameters: Any) -> list[list[dict[str, Any]]]:
    """Each page's rows, in order."""
    pages = []
    cursor: dict[str, str] = {}
    while True:
        answer = client.get(path, params={**parameters, **cursor})
        assert answer.status_code == 200, answer.text
        pages.append(answer.json()[name])
        if answer.json()["next_cursor"] is None:
            return pages
        cursor = {"cursor": answer.json()["next_cursor"]}


def expect_problem(answer: httpx.Response, status: int, words: str, fields: tuple[str, ...] = ()) -> None:
    """The answer is a problem of RFC 9457 that says `words` and names these fields."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["type"], body["status"], body["instance"]) == ("about:blank", status, answer.request.url.path)
    assert body["title"]
    assert words in body["detail"]
    assert tuple(each["field"] for each in body.get("errors", ())) == fields


def test_jobs_are_listed_newest_first_page_by_page(client: httpx.Client, engine: Engine) -> None:
    assert client.get("/jobs").json() == {"jobs": [], "next_cursor": None}
    ids = [make_job(engine, 1, f"text {at % 2}") for at in range(5)]
    run(engine, "UPDATE root_job SET created_at = '2026-01-01' WHERE manifestation_id = 'text 1'")
    fail(engine, claimed_of(engine, ids[0], "text 0"))

    pages = all_pages(client, "/jobs", "jobs", limit=2)

    assert [len(page) for page in pages] == [2, 2, 1]
    listed = [job["job_id"] for page in pages for job in page]
    assert listed == [ids[4], ids[2], ids[0], *sorted((ids[1], ids[3]), reverse=True)]
    (failed,) = client.get("/jobs", params={"status": "FAILED"}).json()["jobs"]
    assert (failed["job_id"], failed["failed_segments"], failed["cancelled_at"]) == (ids[0], 1, None)
    ones = all_pages(client, "/jobs", "jobs", limit=1, manifestation_id="text 1")
    assert [job["job_id"] for page in ones for job in page] == sorted((ids[1], ids[3]), reverse=True)
    assert client.get("/jobs", params={"manifestation_id": "text 1", "status": "FAILED"}).json()["jobs"] == []


def claimed_of(engine: Engine, job_id: str, text: str) -> list[Any]:
    run(engine, "UPDATE root_job SET manifestation_id = 'm' WHERE job_id = %(id)s::uuid", {"id": job_id})
    claims = claimed(engine, job_id, ["s00000"])
    run(engine, "UPDATE root_job SET manifestation_id = %(m)s WHERE job_id = %(id)s::uuid", {"id": job_id, "m": text})
    return claims


def test_a_job_tells_how_its_segments_stand_and_what_they_wait_for(client: httpx.Client, engine: Engine) -> None:
    job_id = make_job(engine, 5)
    done, broken, _held = claimed(engine, job_id, ["s00000", "s00001", "s00002"])
    complete(engine, [done])
    fail(engine, [broken])
    sent = [task.task_id for task in PostgresJobs(engine).list_unsent(job_id, None, 1)]
    PostgresJobs(engine).mark_sent(sent)

    body = client.get(f"/jobs/{job_id.upper()}").json()

    assert (body["job_id"], body["status"], body["total_segments"]) == (job_id, "IN_PROGRESS", 5)
    assert (body["completed_segments"], body["failed_segments"]) == (1, 1)
    assert body["segments"] == {
        "queued": 2, "in_progress": 1, "completed": 1, "retrying": 0, "failed": 1, "unsent": 1,
    }  # fmt: skip
    assert {name: body["outlook"][name] for name in ("unfinished", "held", "waiting", "quiet", "due")} == {
        "unfinished": 3, "held": 1, "waiting": 0, "quiet": 2, "due": 0,
    }  # fmt: skip
    assert body["outlook"]["held_until"]


def test_segments_are_listed_by_status_page_by_page(client: httpx.Client, engine: Engine) -> None:
    job_id = make_job(engine, 7)
    fail(engine, claimed(engine, job_id, ["s00001", "s00004", "s00006"]))
    run(engine, "UPDATE segment_task SET span_start = NULL, span_end = NULL WHERE segment_id = 's00000'")

    pages = all_pages(client, f"/jobs/{job_id}/segments", "segments", limit=3)
    assert [[row["segment_id"] for row in page] for page in pages] == [
        ["s00000", "s00001", "s00002"],
        ["s00003", "s00004", "s00005"],
        ["s00006"],
    ]
    assert pages[0][0]["span"] is None
    pages = all_pages(client, f"/jobs/{job_id}/segments", "segments", limit=2, status="FAILED")
    assert [[row["segment_id"] for row in page] for page in pages] == [["s00001", "s00004"], ["s00006"]]
    row = pages[0][0]
    assert (row["span"], row["error"], row["attempts"]) == ({"start": 10, "end": 20}, "broken", 1)
    assert client.get(f"/jobs/{job_id}/segments", params={"status": "RETRYING"}).json()["segments"] == []


def test_retry_requeues_and_sends(client: httpx.Client, engine: Engine, queues: Queues) -> None:
    job_id = make_job(engine, 3)
    PostgresJobs(engine).mark_sent([task.task_id for task in PostgresJobs(engine).list_unsent(job_id, None, 9)])
    fail(engine, claimed(engine, job_id, ["s00001", "s00002"]))

    answer = client.post(f"/jobs/{job_id}/retry")

    assert (answer.status_code, answer.json()["requeued_segments"], answer.json()["failed_segments"]) == (202, 2, 0)
    assert len(receive_all(queues.segments, 2)) == 2
    assert statuses(engine, job_id) == {"QUEUED": 3}
    assert client.post(f"/jobs/{job_id}/retry").json()["requeued_segments"] == 0


def test_cancel_ends_a_job_once_and_no_completed_one(client: httpx.Client, engine: Engine) -> None:
    job_id, finished = make_job(engine, 2), make_job(engine, 1)
    complete(engine, claimed(engine, finished, ["s00000"]))
    body = client.post(f"/jobs/{job_id}/cancel").json()
    assert (body["status"], body["ended_segments"], body["failed_segments"]) == ("FAILED", 2, 2)
    assert body["cancelled_at"]
    again = client.post(f"/jobs/{job_id}/cancel").json()
    assert (again["ended_segments"], again["cancelled_at"]) == (0, body["cancelled_at"])
    expect_problem(client.post(f"/jobs/{finished}/cancel"), 409, f"job {finished} cannot be cancelled")


def test_reconcile_mends_and_says_what_is_left(client: httpx.Client, engine: Engine, queues: Queues) -> None:
    job_id = make_job(engine, 3)
    complete(engine, claimed(engine, job_id, ["s00000"]))
    run(engine, "UPDATE root_job SET completed_segments = 0, total_segments = 4")
    body = client.post(f"/jobs/{job_id}/reconcile", params={"after_seconds": 0}).json()
    assert (body["counters_mended"], body["segments_resent"], body["found_nothing"]) == (True, 2, False)
    assert (body["is_complete"], body["outlook"]["due"]) == (False, 2)
    assert "says 4, it has 3 segments" in body["remarks"][0]
    assert len(receive_all(queues.segments, 2)) == 2
    assert client.get(f"/jobs/{job_id}").json()["completed_segments"] == 1


def test_what_is_asked_wrongly_is_a_problem_that_names_it(client: httpx.Client, engine: Engine) -> None:
    job_id = make_job(engine, 1)
    for method, path in (
        ("GET", ""),
        ("GET", "/segments"),
        ("POST", "/retry"),
        ("POST", "/cancel"),
        ("POST", "/reconcile"),
    ):
        expect_problem(client.request(method, f"/jobs/{UNKNOWN}{path}"), 404, f"there is no job {UNKNOWN}")
        expect_problem(client.request(method, f"/jobs/not-a-job{path}"), 404, "a job's id is a UUID")
    segments = f"/jobs/{job_id}/segments"
    for path, field, words in (
        ("/jobs?status=DONE", "status", "status should be 'QUEUED', 'IN_PROGRESS'"),
        ("/jobs?limit=0", "limit", "limit should be greater than or equal to 1"),
        ("/jobs?limit=501", "limit", "less than or equal to 500"),
        ("/jobs?limit=many", "limit", "valid integer"),
        ("/jobs?manifestation_id=a%00b", "manifestation_id", "NUL"),
        (f"/jobs?manifestation_id={'x' * 513}", "manifestation_id", "1 to 512 bytes"),
        ("/jobs?cursor=%F0%9F%98%80", "cursor", "is not one that this service has given"),
        ("/jobs?cursor=YQ", "cursor", "is not one"),
        (f"/jobs?cursor={encode_cursor('yesterday', UNKNOWN)}", "cursor", "is not one"),
        (f"/jobs?cursor={encode_cursor('2026-01-01', 'x')}", "cursor", "is not one"),
        (f"{segments}?status=COMPLETE", "status", "should be"),
        (f"{segments}?cursor={encode_cursor('a' + chr(0))}", "cursor", "is not one"),
    ):
        expect_problem(client.get(path), 422, words, (field,))
    for seconds in ("-1", "nan", "inf", "soon"):
        answer = client.post(f"/jobs/{job_id}/reconcile", params={"after_seconds": seconds})
        expect_problem(answer, 422, "after_seconds ", ("after_seconds",))
    expect_problem(client.get("/nowhere"), 404, "there is nothing at '/nowhere'")
    answer = client.delete("/jobs")
    expect_problem(answer, 405, "'DELETE' is not for '/jobs'")
    assert answer.headers["allow"] == "GET"
    answer = client.delete("/relation/m/all-relations")
    assert answer.headers["allow"] == "GET, POST", "a text may be called m/all-relations"


def test_health_names_each_service(
    serve: Callable[[dict[str, str]], httpx.Client], environment: dict[str, str]
) -> None:
    client = serve(environment)
    assert (client.get("/health/live").json(), client.get("/healthz").json()) == ({"status": "ok"}, {"status": "ok"})
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json()) == (
        200,
        {"status": "ok", "dependencies": {"PostgreSQL": "ok", "Neo4j": "ok", "SQS": "ok"}},
    )


@pytest.mark.parametrize(
    ("variable", "value", "service"),
    [
        ("POSTGRES_URL", f"postgresql://u:hidden@127.0.0.1:{CLOSED_PORT}/d", "PostgreSQL"),
        ("AWS_ENDPOINT_URL_SQS", f"http://127.0.0.1:{CLOSED_PORT}", "SQS"),
        ("NEO4J_URI", f"bolt://127.0.0.1:{CLOSED_PORT}", "Neo4j"),
    ],
)
def test_a_service_that_is_down_is_named_and_the_others_are_not(
    serve: Callable[[dict[str, str]], httpx.Client],
    environment: dict[str, str],
    variable: str,
    value: str,
    service: str,
) -> None:
    client = serve({**environment, variable: value})
    ready = client.get("/health/ready")
    assert ready.status_code == 503
    body = ready.json()
    assert body["status"] == "down"
    assert {name for name, state in body["dependencies"].items() if state != "ok"} == {service}
    assert body["dependencies"][service].startswith(f"{service} does not answer")
    assert "hidden" not in ready.text
    assert client.get("/health/live").status_code == 200
    wait_until(lambda: client.get("/health/ready").status_code == 503, "it to be asked anew")


def test_health_of_a_server_without_settings_says_so(serve: Callable[[dict[str, str]], httpx.Client]) -> None:
    client = serve(base_environment())
    ready = client.get("/health/ready")
    assert ready.status_code == 503
    assert "NEO4J_PASSWORD is not set" in ready.json()["dependencies"]["Neo4j"]
    assert client.get("/health/live").status_code == 200


def test_openapi_describes_every_route_and_its_problems(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert {"/jobs", "/jobs/{job_id}", "/jobs/{job_id}/retry", "/health/ready", "/relation/{job_id}/status"} <= set(
        document["paths"]
    )
    answers = document["paths"]["/jobs/{job_id}"]["get"]["responses"]
    assert set(answers["404"]["content"]) == {"application/problem+json"}
    assert set(answers["200"]["content"]) == {"application/json"}
    assert document["components"]["schemas"]["JobRow"]["example"]


def test_a_server_with_a_token_asks_for_it_and_one_without_says_so(
    servers: Callable[..., tuple[Worker, httpx.Client]], environment: dict[str, str]
) -> None:
    server, client = servers({**environment, "API_TOKEN": "correct-horse-battery-staple"})
    expect_problem(client.get("/jobs"), 401, "a token is needed")
    assert client.get("/jobs", headers={"Authorization": "Bearer correct-horse-battery-staple"}).status_code == 200
    assert client.get("/health/ready").status_code == 200
    assert "correct-horse" not in server.log()
    server, client = servers(environment)
    assert "app.web.auth - WARNING - API_TOKEN is not set: only clients on this machine" in server.log()
    expect_problem(client.get("/jobs", headers={"X-Forwarded-For": "203.0.113.5"}), 403, "you come from 203.0.113.5")


ROUTES: tuple[tuple[str, str, set[str]], ...] = (
    ("POST", "/relation/m", {"Neo4j", "SQS"}),
    ("GET", f"/relation/{UNKNOWN}/status", {"PostgreSQL"}),
    ("GET", "/relation/m/all-relations", {"PostgreSQL"}),
    ("GET", "/relation/m/segments?start=0&end=1", {"Neo4j"}),
    ("GET", "/metrics", set()),
    ("GET", "/jobs", {"PostgreSQL"}),
    ("GET", f"/jobs/{UNKNOWN}", {"PostgreSQL"}),
    ("GET", f"/jobs/{UNKNOWN}/segments", {"PostgreSQL"}),
    ("POST", f"/jobs/{UNKNOWN}/retry", {"PostgreSQL"}),
    ("POST", f"/jobs/{UNKNOWN}/cancel", {"PostgreSQL"}),
    ("POST", f"/jobs/{UNKNOWN}/reconcile", {"PostgreSQL"}),
)
"""What each needs before it can tell that it knows nothing."""


def test_a_new_route_is_among_them() -> None:
    asked = {f"{method} {path.partition('?')[0]}" for method, path, _ in ROUTES}
    for path, operations in describe(app)["paths"].items():
        for method in operations:
            pattern = re.sub(r"\{[^}]*\}", "[^/]+", f"{method.upper()} {path}")
            assert path.startswith("/health") or any(re.fullmatch(pattern, each) for each in asked), pattern


@pytest.mark.parametrize("service", ["PostgreSQL", "Neo4j", "SQS"])
def test_every_route_says_which_service_is_down_and_others_do_not_mind(
    serve: Callable[[dict[str, str]], httpx.Client], environment: dict[str, str], service: str
) -> None:
    variable, value = {
        "PostgreSQL": ("POSTGRES_URL", f"postgresql://u:hidden@127.0.0.1:{CLOSED_PORT}/d"),
        "Neo4j": ("NEO4J_URI", f"bolt://127.0.0.1:{CLOSED_PORT}"),
        "SQS": ("AWS_ENDPOINT_URL_SQS", f"http://127.0.0.1:{CLOSED_PORT}"),
    }[service]
    client = serve({**environment, variable: value})
    for method, path, needs in ROUTES:
        answer = client.request(method, path)
        if service in needs:
            expect_problem(answer, 503, f"{service} does not answer")
            assert answer.headers["retry-after"]
            assert "hidden" not in answer.text
        else:
            assert answer.status_code in (200, 404), (method, path, answer.text)

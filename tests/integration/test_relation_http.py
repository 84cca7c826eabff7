"""The published HTTP routes on the real services, asked for over a real socket."""

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from app.db.jobs import PostgresJobs
from app.db.postgres import run
from app.errors import OutageError
from app.jobs.producer import Producer
from app.models import AllRelations, JobState, parse_segment_message
from app.sqs.queue import Outgoing
from app.web.bodies import PartialRelations
from app.web.sending import BackgroundSender
from devstack.families import SMALL_FAMILY_PATH, Family
from tests.support.engine import Engine
from tests.support.jobs import RESULT, claimed, complete, fail, make_job, rows, segments
from tests.support.producer import Pauses, Texts, TroubledQueue, lose, refuse_all
from tests.support.services import ROOT, Queues, base_environment, receive_all
from tests.support.worker import Worker, wait_until

TEXT = "root-bo"
FAMILY = Family.from_json(SMALL_FAMILY_PATH)
CLOSED_PORT = 1


def receive_ids(queues: Queues, count: int) -> list[str]:
    messages = receive_all(queues.segments, count)
    return [parse_segment_message(str(message["Body"])).segment_id for message in messages]


def received(queues: Queues) -> list[str]:
    messages = queues.segments.receive(10, 1, 30)
    return sorted(parse_segment_message(message["Body"]).segment_id for message in messages)


def test_a_job_is_made_and_its_messages_are_queued(
    client: httpx.Client, engine: Engine, queues: Queues, load_graph: Callable[[Family], None]
) -> None:
    load_graph(FAMILY)
    answer = client.post(f"/relation/{TEXT}")
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert answer.headers["location"] == f"/jobs/{body['job_id']}"
    assert set(body) == {"job_id", "status", "message"}
    assert body["status"] == "QUEUED"
    job = PostgresJobs(engine).get(str(uuid.UUID(body["job_id"])))
    assert job is not None
    assert job.manifestation_id == TEXT
    wanted = sorted(segment.id for segment in FAMILY.job_segments(TEXT))
    assert sorted(receive_ids(queues, len(wanted))) == wanted

    state = client.get(f"/relation/{job.job_id}/status")
    assert state.status_code == 200
    columns = rows(
        engine,
        "SELECT row_to_json(j) FROM (SELECT job_id, manifestation_id, total_segments, completed_segments,"
        " failed_segments, status, created_at, updated_at FROM root_job) j",
    )
    assert set(state.json()) == set(columns[0][0])
    assert JobState.model_validate(state.json()) == JobState.model_validate(columns[0][0])

    assert client.get(f"/relation/{TEXT}/all-relations").status_code == 409


def test_what_does_not_exist_is_404_and_makes_nothing(
    client: httpx.Client, engine: Engine, queues: Queues, load_graph: Callable[[Family], None]
) -> None:
    load_graph(Family(("bare",), (), (), (), ()))
    for method, path, words in (
        ("POST", "/relation/nobody", "'nobody' does not exist"),
        ("POST", "/relation/bare", "'bare' has no segments"),
        ("POST", f"/relation/{'x' * 513}", "1 to 512 bytes"),
        ("POST", "/relation/a%00b", "NUL"),
        ("GET", f"/relation/{uuid.uuid4()}/status", "there is no job"),
        ("GET", "/relation/not-a-uuid/status", "a job's id is a UUID"),
        ("GET", "/relation/nobody/all-relations", "there is no job of the manifestation 'nobody'"),
        ("GET", "/relation/a%00b/all-relations", "NUL"),
    ):
        answer = client.request(method, path)
        assert answer.status_code == 404, (path, answer.text)
        assert words in answer.json()["detail"]
    assert rows(engine, "SELECT * FROM root_job") == []
    assert received(queues) == []


def test_any_id_can_be_asked_for(client: httpx.Client, engine: Engine, load_graph: Callable[[Family], None]) -> None:
    """Percent-encoded, as browsers send it, slashes included."""
    texts = ["a/b", "a/status", "x/all-relations", "ཀ་ཁ", "50%", "a b?c#d", "all-relations"]
    graph = {
        "manifestations": texts,
        "annotations": [{"id": f"of {text}", "manifestation": text, "type": "segmentation"} for text in texts],
        "segments": [{"id": f"s {text}", "annotation": f"of {text}", "start": 0, "end": 10} for text in texts],
        "aligned_annotations": [],
        "aligned_segments": [],
    }
    load_graph(Family.from_graph(graph))
    for text in texts:
        made = client.post(f"/relation/{quote(text, safe='')}")
        assert made.status_code == 202, (text, made.text)
        assert client.get(f"/relation/{quote(text, safe='')}/all-relations").status_code == 409
    run(engine, "UPDATE root_job SET status = 'COMPLETED', completed_segments = 1")
    run(engine, "UPDATE segment_task SET status = 'COMPLETED', result_json = '[]'")
    for text in texts:
        answer = client.get(f"/relation/{quote(text, safe='')}/all-relations")
        assert answer.json() == {"manifestation_id": text, "segments": [{"segment_id": f"s {text}", "mappings": []}]}


def test_relations_are_those_of_the_newest_completed_job(client: httpx.Client, engine: Engine) -> None:
    old, new = make_job(engine, 250), make_job(engine, 250)
    for job_id in (old, new):
        names = [segment[0] for segment in segments(250)]
        for at in range(0, 250, 50):
            complete(engine, claimed(engine, job_id, names[at : at + 50]))
    run(engine, f"UPDATE segment_task SET result_json = '[]' WHERE job_id = '{old}'")
    newest = make_job(engine, 1)
    fail(engine, claimed(engine, newest, ["s00000"]))

    answer = client.get("/relation/m/all-relations")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "manifestation_id": "m",
        "segments": [{"segment_id": segment[0], "mappings": json.loads(RESULT)} for segment in segments(250)],
    }
    AllRelations.model_validate(answer.json())


def test_an_unfinished_or_failed_job_has_no_relations_yet(client: httpx.Client, engine: Engine) -> None:
    job_id = make_job(engine, 2)
    complete(engine, claimed(engine, job_id, ["s00000"]))
    answer = client.get("/relation/m/all-relations")
    assert answer.status_code == 409
    assert answer.json()["detail"].endswith(f"{job_id}, is IN_PROGRESS with 1 of 2 segments completed")
    fail(engine, claimed(engine, job_id, ["s00001"]))
    assert client.get("/relation/m/all-relations").status_code == 409


def test_what_an_unfinished_or_failed_job_has_found_is_given_on_request(client: httpx.Client, engine: Engine) -> None:
    job_id = make_job(engine, 3)
    complete(engine, claimed(engine, job_id, ["s00001"]))
    path = "/relation/m/all-relations"
    found = {
        "manifestation_id": "m",
        "job_id": job_id,
        "status": "IN_PROGRESS",
        "total_segments": 3,
        "completed_segments": 1,
        "failed_segments": 0,
        "segments": [{"segment_id": "s00001", "mappings": json.loads(RESULT)}],
    }
    for parameters in ({}, {"job_id": job_id}, {"job_id": job_id.upper()}):
        assert client.get(path, params={**parameters, "partial": "true"}).json() == found
    refused = client.get(path, params={"job_id": job_id})
    assert (refused.status_code, "partial=true" in refused.json()["detail"]) == (409, True)
    fail(engine, claimed(engine, job_id, ["s00000", "s00002"]))
    answer = client.get(path, params={"partial": "true"}).json()
    assert answer == {**found, "status": "FAILED", "failed_segments": 2}
    PartialRelations.model_validate(answer)

    whole = make_job(engine, 1)
    complete(engine, claimed(engine, whole, ["s00000"]))
    assert client.get(path, params={"partial": "true"}).json()["job_id"] == whole
    assert set(client.get(path, params={"job_id": whole}).json()) == {"manifestation_id", "segments"}
    assert client.get(path, params={"partial": "true", "job_id": job_id}).json()["completed_segments"] == 1
    for parameters, status, words in (
        ({"job_id": str(uuid.uuid4())}, 404, "there is no job"),
        ({"job_id": "x"}, 404, "a job's id is a UUID"),
        ({"partial": "maybe"}, 422, "partial should be a valid boolean"),
    ):
        refused = client.get(path, params=parameters)
        assert (refused.status_code, words in refused.json()["detail"]) == (status, True), refused.text
    other = client.get("/relation/n/all-relations", params={"job_id": whole})
    assert (other.status_code, other.json()["detail"]) == (
        404,
        f"job {whole} is of the manifestation 'm', not of 'n'",
    )


def test_a_worker_finishes_the_job_and_its_relations_are_served(
    client: httpx.Client, environment: dict[str, str], load_graph: Callable[[Family], None]
) -> None:
    load_graph(FAMILY)
    job_id = client.post(f"/relation/{TEXT}").json()["job_id"]
    with Worker(environment) as worker:
        wait_until(lambda: client.get(f"/relation/{job_id}/status").json()["status"] == "COMPLETED", "the job's end")
        worker.stop()
    relations = AllRelations.model_validate(client.get(f"/relation/{TEXT}/all-relations").json())
    wanted = sorted(FAMILY.job_segments(TEXT), key=lambda segment: (segment.start, segment.id))
    assert [segment.segment_id for segment in relations.segments] == [segment.id for segment in wanted]
    assert any(segment.mappings for segment in relations.segments)


@pytest.mark.parametrize(
    ("variable", "value", "service"),
    [
        ("POSTGRES_URL", f"postgresql://u:hidden@127.0.0.1:{CLOSED_PORT}/d", "PostgreSQL"),
        ("AWS_ENDPOINT_URL_SQS", f"http://127.0.0.1:{CLOSED_PORT}", "SQS"),
        ("NEO4J_URI", f"bolt://127.0.0.1:{CLOSED_PORT}", "Neo4j"),
    ],
)
def test_a_dead_service_is_503(
    serve: Callable[[dict[str, str]], httpx.Client],
    environment: dict[str, str],
    engine: Engine,
    variable: str,
    value: str,
    service: str,
) -> None:
    client = serve({**environment, variable: value})
    answer = client.post(f"/relation/{TEXT}")
    assert answer.status_code == 503
    assert answer.json()["detail"].startswith(f"{service} does not answer")
    assert answer.headers["retry-after"]
    assert "hidden" not in answer.text
    assert rows(engine, "SELECT * FROM root_job") == []
    dead_database = service == "PostgreSQL"
    assert client.get("/healthz").status_code == (503 if dead_database else 200)
    assert client.get(f"/relation/{uuid.uuid4()}/status").status_code == (503 if dead_database else 404)


def test_what_cannot_be_sent_behind_the_answer_is_logged_and_left_to_the_sweep(
    engine: Engine, queues: Queues, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever asked has the job, and must not make another one."""
    sender = BackgroundSender()
    for queue, reason in (
        (TroubledQueue(queues.segments, *[refuse_all] * 99), "InternalError"),
        (TroubledQueue(queues.segments, lose(OutageError("SQS", "gone"))), "SQS does not answer: gone"),
    ):
        producer = Producer(PostgresJobs(engine), queue, Texts({"m": segments(12)}), sleep=Pauses())
        job_id = producer.create("m").job_id
        sender.send(producer, job_id)
        words = f"Job {job_id} is saved but not all of its messages could be sent, only 0: {reason}; the workers' sweep"
        wait_until(lambda words=words: words in caplog.text, words)  # type: ignore[misc]
        sender.close()
        assert f"python -m app.jobs resume {job_id}" in caplog.text
    assert rows(engine, "SELECT count(*) FROM segment_task WHERE last_sent_at IS NULL") == [(24,)]


def test_a_server_that_stops_leaves_the_rest_to_the_sweep(
    engine: Engine, queues: Queues, caplog: pytest.LogCaptureFixture
) -> None:
    sender = BackgroundSender()
    reached = Event()

    def stop_meanwhile(_messages: Sequence[Outgoing]) -> None:
        reached.set()
        assert stopped.wait(30)

    queue = TroubledQueue(queues.segments, stop_meanwhile)
    producer = Producer(PostgresJobs(engine), queue, Texts({"m": segments(250)}), sleep=Pauses())
    job_id = producer.create("m").job_id
    stopped = Event()
    sender.send(producer, job_id)
    assert reached.wait(30)
    closing = Thread(target=sender.close)
    closing.start()
    wait_until(lambda: sender.is_closing, "the sender to be told")
    stopped.set()
    closing.join()
    assert f"Job {job_id} is saved but not all of its messages could be sent, only 100: this server was" in caplog.text
    sender.send(producer, job_id)
    wait_until(lambda: len(rows(engine, "SELECT 1 FROM segment_task WHERE last_sent_at IS NULL")) == 0, "the rest")
    sender.close()


def test_identical_posts_at_once_make_one_job(
    client: httpx.Client, engine: Engine, queues: Queues, load_graph: Callable[[Family], None]
) -> None:
    load_graph(FAMILY)
    headers = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post(f"/relation/{TEXT}", headers=headers), range(8)))
    assert [answer.status_code for answer in answers] == [202] * 8
    assert len({answer.text for answer in answers}) == 1
    assert rows(engine, "SELECT count(*) FROM root_job") == [(1,)]
    wanted = sorted(segment.id for segment in FAMILY.job_segments(TEXT))
    assert rows(engine, "SELECT count(*) FROM segment_task") == [(len(wanted),)]
    assert sorted(receive_ids(queues, len(wanted))) == wanted
    assert received(queues) == []

    run(engine, "UPDATE root_job SET status = 'COMPLETED', completed_segments = total_segments")
    load_graph(Family(("other",), (), (), (), ()))
    assert client.post(f"/relation/{TEXT}", headers=headers).text == answers[0].text, "the answer of then"


def test_a_key_of_another_text_is_refused_and_one_that_made_nothing_is_free(
    client: httpx.Client, engine: Engine, load_graph: Callable[[Family], None]
) -> None:
    load_graph(FAMILY)
    headers = {"Idempotency-Key": "once"}
    assert client.post("/relation/nobody", headers=headers).status_code == 404
    job_id = client.post(f"/relation/{TEXT}", headers=headers).json()["job_id"]
    other = client.post("/relation/translation-en", headers=headers)
    assert other.status_code == 422
    assert other.json()["detail"] == f"Idempotency-Key was used before, for job {job_id} of the text '{TEXT}'"
    assert other.json()["errors"][0]["field"] == "Idempotency-Key"
    for key in (b"", b"k" * 256, "ключ".encode()):
        answer = client.post(f"/relation/{TEXT}", headers={b"Idempotency-Key": key})
        assert (answer.status_code, answer.json()["errors"][0]["field"].lower()) == (422, "idempotency-key"), key
    assert rows(engine, "SELECT job_id::text FROM root_job") == [(job_id,)]
    run(engine, "DELETE FROM segment_task; DELETE FROM root_job")
    assert client.post("/relation/translation-en", headers=headers).status_code == 202, "gone with its job"


def test_two_graphs_for_one_key_make_one_whole_job(engine: Engine, queues: Queues) -> None:
    """The graph changed between two requests at once: the job is that of the one that was first."""
    jobs = PostgresJobs(engine)

    class Later(PostgresJobs):
        """Somebody else's request comes in between."""

        def create_once(self, key: str, job_id: str, manifestation_id: str, segments: Any) -> None:
            jobs.create_once(key, str(uuid.uuid4()), manifestation_id, [("theirs", 0, 1)])
            super().create_once(key, job_id, manifestation_id, segments)

    producer = Producer(Later(engine), queues.segments, Texts({"m": segments(5)}))
    job, is_new = producer.create_once("m", "key")
    assert (job.total_segments, is_new) == (1, False)
    assert rows(engine, "SELECT segment_id FROM segment_task") == [("theirs",)]


def test_looking_at_jobs_needs_the_database_only(
    serve: Callable[[dict[str, str]], httpx.Client], postgres_url: str, engine: Engine
) -> None:
    client = serve({**base_environment(), "POSTGRES_URL": postgres_url})
    job_id = make_job(engine, 1)
    assert client.get(f"/relation/{job_id}/status").json()["status"] == "QUEUED"
    answer = client.post(f"/relation/{TEXT}")
    assert (answer.status_code, "NEO4J" in answer.text) == (500, False)


def test_importing_needs_no_setting_and_the_worker_no_fastapi() -> None:
    """An import hook stands in for an environment without the package."""
    for code in (
        "import app.relation",
        "import sys; sys.modules['fastapi'] = None; import app.main, app.jobs.__main__",
    ):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=base_environment(), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")

"""The pages about jobs, queues and workers on the real services, and who may see them."""

import re
import uuid
from collections.abc import Callable

import httpx
import pytest

from app.db.postgres import run
from app.sqs.queue import Outgoing, text_attribute
from tests.support.engine import Engine
from tests.support.jobs import claimed, complete, fail, make_job, rows, statuses
from tests.support.pages import Page, find, words
from tests.support.services import Queues, base_environment, receive_all
from tests.support.worker import wait_until

CLOSED_PORT = 1
TOKEN = "a-token-of-the-tests"

Serve = Callable[[dict[str, str]], httpx.Client]


def get(client: httpx.Client, path: str) -> Page:
    return Page(client.get(path))


def press(client: httpx.Client, path: str, action: str, **changed: str) -> httpx.Response:
    """Send the form that is on a page."""
    return client.post(action, data={**get(client, path).form(action), **changed})


def table(page: Page) -> list[list[str]]:
    """The words of each cell of the first table, row by row."""
    return [[words(cell) for cell in row if cell.tag in ("th", "td")] for row in find(page.one("tbody"), "tr")]


def ids(names: range) -> list[str]:
    return [f"s{at:05}" for at in names]


def age(engine: Engine, job_id: str, seconds: int) -> None:
    run(
        engine,
        "UPDATE root_job SET created_at = created_at - %(seconds)s * interval '1 second' WHERE job_id = %(job)s::uuid",
        {"seconds": seconds, "job": job_id},
    )


def test_jobs_are_listed_with_how_far_and_how_fast(client: httpx.Client, engine: Engine) -> None:
    assert "There are no jobs" in get(client, "/").text
    queued, going = make_job(engine, 3), make_job(engine, 10)
    complete(engine, claimed(engine, going, ids(range(4))))
    fail(engine, claimed(engine, going, ids(range(4, 5))))
    run(
        engine,
        "UPDATE root_job SET manifestation_id = %(name)s, created_at = updated_at - interval '50 seconds'"
        " WHERE job_id = %(job)s::uuid",
        {"name": "A <text> & co\x07", "job": going},
    )
    age(engine, queued, 500)

    page = get(client, "/")

    assert page.heading == "Jobs"
    first, second = table(page)
    assert first[:6] == [going[:8], "A <text> & co\\x07", "IN_PROGRESS", "4 of 10, 1 failed", "6.0 a minute", "50 s"]
    assert second[:6] == [queued[:8], "m", "QUEUED", "0 of 3", "none yet", "unknown"]
    bar = page.one("progress")
    assert (bar.attrib["value"], bar.attrib["max"]) == ("5", "10")
    assert page.links()[going[:8]] == f"/ui/jobs/{going}"


def test_jobs_are_filtered_and_paged(client: httpx.Client, engine: Engine) -> None:
    made = [make_job(engine, 1) for _ in range(60)]
    for at, job_id in enumerate(made):
        age(engine, job_id, at)
    run(engine, "UPDATE root_job SET created_at = date_trunc('minute', created_at)")  # several at the same moment
    page = get(client, "/")
    found = [row[0] for row in table(page)]
    while older := page.links().get("Older"):
        page = get(client, older)
        found += [row[0] for row in table(page)]
    assert sorted(found) == sorted(job_id[:8] for job_id in made)
    fail(engine, claimed(engine, made[7], ["s00000"]))
    assert [row[0] for row in table(get(client, "/?status=FAILED"))] == [made[7][:8]]
    assert "There are no COMPLETED jobs" in get(client, "/?status=COMPLETED").text
    assert client.get("/?refresh=1").headers["refresh"] == "5"


def test_a_job_tells_what_failed_and_why_and_what_waits(client: httpx.Client, engine: Engine) -> None:
    job_id = make_job(engine, 60)
    fail(engine, claimed(engine, job_id, ids(range(55))))
    claimed(engine, job_id, ["s00055"])
    run(engine, "UPDATE segment_task SET error_message = '<b>no</b> such' || chr(10) || 'page' WHERE status = 'FAILED'")
    page = get(client, f"/ui/jobs/{job_id.upper()}")
    assert page.status == 200
    shown = table(page)
    assert shown[0][:3] == ["s00000", "[0, 10)", "1"]
    assert shown[0][3].startswith("<b>no</b> such\\npage")
    assert "failed 20" in shown[0][3]
    assert [row[0] for row in shown + table(get(client, page.links()["More"]))] == ids(range(55))
    assert "1 held by test, leased until 20" in page.text
    assert "4 segments without a message that was noted as sent" in page.text
    assert re.search(r"The input queue \S+, of all jobs: about 0 messages waiting, 0 hidden", page.text)
    assert re.search(r"The last error, at 20.*, of the segment s000\d\d: <b>no</b> such", page.text)
    held = table(get(client, f"/ui/jobs/{job_id}?segments=IN_PROGRESS"))
    assert held[0][3].startswith("held by test until 20")
    assert page.links()["[0, 10)"] == "/ui/map?manifestation=m&start=0&end=10"


def test_failed_segments_are_retried_and_their_messages_sent(
    client: httpx.Client, engine: Engine, queues: Queues
) -> None:
    job_id = make_job(engine, 3)
    fail(engine, claimed(engine, job_id, ids(range(2))))
    run(engine, "UPDATE segment_task SET last_sent_at = clock_timestamp()")
    page = f"/ui/jobs/{job_id}"
    answer = press(client, page, f"{page}/retry")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{page}?did=retried")
    assert "queued again" in get(client, answer.headers["location"]).text
    assert len(receive_all(queues.segments, 2)) == 2
    assert statuses(engine, job_id) == {"QUEUED": 3}
    unsent = "SELECT segment_id FROM segment_task WHERE last_sent_at IS NULL"
    wait_until(lambda: rows(engine, unsent) == [], "the messages to be marked as sent")
    again = client.post(f"{page}/retry", data=get(client, "/ui/map").form("/ui/map") | _token(client))
    assert again.headers["location"] == f"{page}?did=nothing"


def _token(client: httpx.Client) -> dict[str, str]:
    """The token of this session's forms, from a job that can be cancelled."""
    address = next(each for each in get(client, "/").links().values() if each.startswith("/ui/jobs/"))
    page = get(client, address)
    form = next(form for form in page.all("form") if form.attrib["method"] == "post")
    return {each.attrib["name"]: each.attrib["value"] for each in find(form, "input")}


def test_a_job_is_cancelled_and_one_that_completed_is_not(client: httpx.Client, engine: Engine) -> None:
    job_id, done = make_job(engine, 2), make_job(engine, 1)
    complete(engine, claimed(engine, done, ["s00000"]))
    page = f"/ui/jobs/{job_id}"
    form = get(client, page).form(f"{page}/cancel")
    assert client.post(f"/ui/jobs/{done}/cancel", data=form).status_code == 409
    assert client.post(f"/ui/jobs/{uuid.uuid4()}/cancel", data=form).status_code == 404
    assert press(client, page, f"{page}/cancel").status_code == 303
    assert statuses(engine, job_id) == {"FAILED": 2}
    assert "cancelled" in get(client, page).text
    assert f"{page}/cancel" not in get(client, page).answer.text


def test_messages_that_were_never_sent_are_sent(client: httpx.Client, engine: Engine, queues: Queues) -> None:
    job_id = make_job(engine, 12)
    page = f"/ui/jobs/{job_id}"
    assert "Send 12 messages never sent" in get(client, page).text
    assert press(client, page, f"{page}/send").status_code == 303
    assert len(receive_all(queues.segments, 12)) == 12


def test_a_form_from_elsewhere_changes_nothing(client: httpx.Client, engine: Engine) -> None:
    job_id = make_job(engine, 1)
    page = f"/ui/jobs/{job_id}"
    form = get(client, page).form(f"{page}/cancel")
    kept = dict(client.cookies)
    for data, headers, cookies in (
        ({}, {}, kept),
        ({"form_token": "0" * 64}, {}, kept),
        ({"form_token": "ä"}, {}, kept),
        (form, {"Origin": "https://elsewhere.example"}, kept),
        (form, {"Origin": "null"}, kept),
        (form, {"Sec-Fetch-Site": "cross-site"}, kept),
        (form, {}, {}),
        (form, {}, {"segments_session": "9999999999.x.y"}),
    ):
        client.cookies.clear()
        client.cookies.update(cookies)
        answer = client.post(f"{page}/cancel", data=data, headers=headers)
        assert answer.status_code == 403, (data, headers, cookies)
        assert "set-cookie" not in answer.headers, "a refusal must not take the browser's own session"
    assert statuses(engine, job_id) == {"QUEUED": 1}
    client.cookies.clear()
    client.cookies.update(kept)
    own = {"Origin": str(client.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    assert client.post(f"{page}/cancel", data=form, headers=own).status_code == 303


@pytest.mark.parametrize(
    ("path", "status", "words_of_it"),
    [
        ("/?status=DONE", 422, "status: must be one of QUEUED, IN_PROGRESS, COMPLETED, FAILED, not 'DONE'"),
        ("/?before=yesterday", 422, "before: must be what a link to older jobs holds"),
        ("/?before=2025-01-01T00:00:00~x", 422, "before: must be"),
        ("/?refresh=often", 422, "refresh: "),
        ("/ui/jobs/none", 404, "there is no job 'none': a job's id is a UUID"),
        (f"/ui/jobs/{uuid.UUID(int=5)}", 404, f"there is no job {uuid.UUID(int=5)}"),
        ("/ui/jobs/JOB?segments=LOST", 422, "segments: must be one of QUEUED"),
        ("/ui/jobs/JOB?after=a%00b", 422, "after: must not contain the NUL"),
        ("/ui/queues?moved=many", 422, "moved: "),
    ],
)
def test_what_makes_no_sense_is_told_in_words(
    client: httpx.Client, engine: Engine, path: str, status: int, words_of_it: str
) -> None:
    page = get(client, path.replace("JOB", make_job(engine, 1)))
    assert (page.status, words_of_it in page.text) == (status, True), page.text


def test_queues_tell_their_depths_and_dead_letters_their_reasons(
    client: httpx.Client, engine: Engine, queues: Queues
) -> None:
    assert "There are none to see" in get(client, "/ui/queues").text
    job_id = make_job(engine, 2)
    age(engine, job_id, 7_300)
    bodies = [
        f'{{"job_id": "{job_id}", "manifestation_id": "m", "segment_id": "{name}", "start": 0, "end": 10}}'
        for name in ids(range(2))
    ]
    reason = {"reason": text_attribute("no <such> text"), "receives": text_attribute("3"), "own": text_attribute("x")}
    queues.dead_letters.send([Outgoing(bodies[0], 0, reason), Outgoing(bodies[1], 0, reason), Outgoing("rubbish")])
    queues.segments.send([Outgoing("waiting")])
    page = get(client, "/ui/queues")
    assert table(page) == [
        ["input", queues.segments.name, "1", "0"],
        ["completed", queues.completed.name, "0", "0"],
        ["dead letters", queues.dead_letters.name, "3", "0"],
    ]
    assert "made 2 h 1 min ago" in page.text
    letters = [[words(cell) for cell in row if cell.tag in ("th", "td")] for row in find(page.all("tbody")[1], "tr")]
    assert sorted(row[:4] for row in letters) == sorted(
        [
            ["no <such> text", job_id[:8], "s00000", "3"],
            ["no <such> text", job_id[:8], "s00001", "3"],
            [_without_reason(letters), "not readable", "not readable", "not told"],
        ]
    )
    # Looking has changed nothing: a second look finds them all.
    assert len(find(get(client, "/ui/queues").all("tbody")[1], "tr")) == 3


def _without_reason(letters: list[list[str]]) -> str:
    (found,) = [row[0] for row in letters if row[1] == "not readable"]
    assert found.startswith("none given")
    return found


def test_dead_letters_go_back_one_by_one_or_all(client: httpx.Client, engine: Engine, queues: Queues) -> None:
    reason = {"reason": text_attribute("broken"), "receives": text_attribute("3"), "own": text_attribute("x")}
    queues.dead_letters.send([Outgoing(f"letter {at}", 0, reason) for at in range(23)])
    page = get(client, "/ui/queues")
    single = [form for form in page.all("form") if len(find(form, "input")) == 2]
    chosen = {each.attrib["name"]: each.attrib["value"] for each in find(single[13], "input")}
    answer = client.post("/ui/queues/redrive", data=chosen)
    assert answer.headers["location"] == "/ui/queues?moved=1"
    assert "1 dead letter went back to the input queue" in get(client, answer.headers["location"]).text
    (message,) = receive_all(queues.segments, 1)
    assert sorted(message["MessageAttributes"]) == ["own"]
    assert (queues.dead_letters.facts().messages, queues.segments.facts().messages) == (22, 1)
    del chosen["message_id"]
    assert client.post("/ui/queues/redrive", data=chosen).headers["location"] == "/ui/queues?moved=22"
    assert (queues.dead_letters.facts().messages, queues.segments.facts().messages) == (0, 23)


def test_without_a_dead_letter_queue_the_page_says_where_they_are(
    serve: Serve, environment: dict[str, str], engine: Engine
) -> None:
    client = serve({name: value for name, value in environment.items() if name != "SQS_DEAD_LETTER_QUEUE_URL"})
    assert "SQS_DEAD_LETTER_QUEUE_URL is not set" in get(client, "/ui/queues").text
    make_job(engine, 1)
    assert client.post("/ui/queues/redrive", data=_token(client)).status_code == 409


def test_workers_are_seen_by_what_they_hold(client: httpx.Client, engine: Engine) -> None:
    assert "Nobody holds a segment" in get(client, "/ui/workers").text
    job_id = make_job(engine, 5)
    claimed(engine, job_id, ids(range(3)))
    assert table(get(client, "/ui/workers"))[0][:4] == ["test", "working", "3", "1"]
    run(engine, "UPDATE segment_task SET lease_expires_at = lease_expires_at - interval '1 hour'")
    assert table(get(client, "/ui/workers"))[0][:4] == ["test", "lease ran out", "3", "1"]


@pytest.mark.parametrize(
    ("variable", "value", "service", "paths"),
    [
        ("POSTGRES_URL", f"postgresql://u:hidden@127.0.0.1:{CLOSED_PORT}/d", "PostgreSQL", ["/", "/ui/queues"]),
        ("POSTGRES_URL", f"postgresql://u:hidden@127.0.0.1:{CLOSED_PORT}/d", "PostgreSQL", ["/ui/workers", "JOB"]),
        ("AWS_ENDPOINT_URL_SQS", f"http://127.0.0.1:{CLOSED_PORT}", "SQS", ["/ui/queues"]),
        ("NEO4J_URI", f"bolt://127.0.0.1:{CLOSED_PORT}", "Neo4j", ["/ui/map?manifestation=m&start=0&end=5"]),
    ],
)
def test_a_service_that_is_down_is_said_in_words(
    serve: Serve,
    environment: dict[str, str],
    engine: Engine,
    variable: str,
    value: str,
    service: str,
    paths: list[str],
) -> None:
    client = serve({**environment, variable: value})
    job_id = make_job(engine, 1)
    for path in paths:
        page = get(client, path.replace("JOB", f"/ui/jobs/{job_id}"))
        assert page.status == 503
        assert page.heading == "Not available now"
        assert f"{service} does not answer" in page.text
        assert page.answer.headers["retry-after"]
        assert "hidden" not in page.answer.text
    if service != "PostgreSQL":
        assert get(client, "/").status == 200
        page = get(client, f"/ui/jobs/{job_id}")
        assert page.status == 200
        assert ("can't be told: SQS does not answer" in page.text) == (service == "SQS")
    assert get(client, "/ui/map").status == 200


def test_nothing_is_retried_that_could_not_be_sent(serve: Serve, environment: dict[str, str], engine: Engine) -> None:
    client = serve({**environment, "AWS_ENDPOINT_URL_SQS": f"http://127.0.0.1:{CLOSED_PORT}"})
    job_id = make_job(engine, 1)
    fail(engine, claimed(engine, job_id, ["s00000"]))
    page = f"/ui/jobs/{job_id}"
    answer = Page(press(client, page, f"{page}/retry"))
    assert answer.status == 503
    assert statuses(engine, job_id) == {"FAILED": 1}


def test_missing_settings_are_not_shown_to_strangers(serve: Serve) -> None:
    client = serve(base_environment())
    page = get(client, "/")
    assert (page.status, "POSTGRES_URL" in page.text) == (500, False)


@pytest.fixture
def guarded(serve: Serve, environment: dict[str, str]) -> httpx.Client:
    """A client of the app that asks for a token."""
    return serve({**environment, "API_TOKEN": TOKEN})


PATHS = ["/", "/ui/map", "/ui/map?manifestation=m", "/ui/queues", "/ui/workers", f"/ui/jobs/{uuid.UUID(int=1)}"]


def test_with_a_token_every_page_asks_for_it(guarded: httpx.Client, engine: Engine) -> None:
    job_id = make_job(engine, 1)
    for path in PATHS:
        answer = guarded.get(path)
        assert (answer.status_code, answer.text) == (303, "")
        assert answer.headers["location"].startswith("/ui/login?next=%2F")
    for path in (f"/ui/jobs/{job_id}/cancel", f"/ui/jobs/{job_id}/retry", "/ui/queues/redrive", "/ui/logout"):
        answer = guarded.post(path, data={"form_token": "x"})
        assert answer.status_code in (303, 403)
    assert statuses(engine, job_id) == {"QUEUED": 1}
    login = get(guarded, "/ui/login?next=/ui/queues")
    assert [each for each in login.links() if each != "Skip to the content"] == []
    assert guarded.get("/ui/style.css").status_code == 200


def test_the_token_opens_a_session_until_it_is_left(guarded: httpx.Client, engine: Engine) -> None:
    wrong = Page(guarded.post("/ui/login", data={"token": "wröng", "next": "/ui/queues"}))
    assert (wrong.status, "That is not the token" in wrong.text) == (403, True)
    assert not guarded.cookies
    foreign = guarded.post("/ui/login", data={"token": TOKEN}, headers={"Origin": "https://elsewhere.example"})
    assert foreign.status_code == 403
    answer = guarded.post("/ui/login", data={"token": TOKEN, "next": "/ui/queues"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/ui/queues")
    cookie = answer.headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=strict", "Path=/", "Max-Age=43200"))
    assert TOKEN not in cookie
    job_id = make_job(engine, 1)
    assert get(guarded, "/").status == 200
    page = f"/ui/jobs/{job_id}"
    assert press(guarded, page, f"{page}/cancel").status_code == 303
    form = get(guarded, "/").form("/ui/logout")
    assert guarded.post("/ui/logout", data=form).headers["location"] == "/ui/login"
    assert guarded.get("/").status_code == 303


@pytest.mark.parametrize("where", ["https://elsewhere.example/", "//elsewhere.example", "/\\elsewhere", "x", "/\nx"])
def test_a_login_sends_nobody_elsewhere(guarded: httpx.Client, where: str) -> None:
    answer = guarded.post("/ui/login", data={"token": TOKEN, "next": where})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_a_session_cannot_be_made_up(guarded: httpx.Client, serve: Serve, environment: dict[str, str]) -> None:
    """Not by hand, and not with what a server that asks for no token gives to everybody."""
    open_client = serve(environment)
    get(open_client, "/")
    given = open_client.cookies["segments_session"]
    expires, nonce, signature = given.split(".")
    for value in (given, f"{expires}.{nonce}.", f"{expires}.{nonce}.{'0' * 64}", "..", "9999999999..", signature):
        guarded.cookies.clear()
        guarded.cookies.set("segments_session", value)
        assert guarded.get("/").status_code == 303, value

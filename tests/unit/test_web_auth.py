"""Who the HTTP side answers. No service is needed: whoever is turned away is so before one is asked."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.types import Scope

from app.config import load_settings
from app.errors import ConfigurationError
from app.relation import app
from app.web import auth
from app.web.openapi import describe
from tests.support.in_process import ask

TOKEN = "correct-horse-battery-staple"
STRANGER = "203.0.113.5"
DOCUMENT = "/openapi.json"
HEALTH = ("/health/live", "/health/ready", "/healthz")


@pytest.fixture(autouse=True)
def _no_token_of_another_test() -> Iterator[None]:
    auth.forget_token()
    yield
    auth.forget_token()


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    """API_TOKEN is set; its value."""
    monkeypatch.setenv("API_TOKEN", TOKEN)
    return TOKEN


def operations() -> Iterator[tuple[str, str]]:
    for path, methods in describe(app)["paths"].items():
        for method in methods:
            yield method.upper(), path.format(job_id="x", manifestation_id="x")


def test_every_route_but_health_asks_for_the_token(token: str) -> None:
    asked = [*operations(), ("GET", "/openapi.json")]
    assert len(asked) > 10
    for method, path in asked:
        if path in HEALTH:
            continue
        for headers, words in (({}, "a token is needed"), ({"Authorization": "Bearer wrong"}, "not the server's")):
            answer = ask(path, method, headers=headers)
            assert answer.status_code == 401, (method, path, answer.text)
            assert words in answer.json()["detail"]
            assert answer.headers["www-authenticate"].startswith('Bearer realm="segments"')
            assert answer.headers["content-type"] == "application/problem+json"
            assert token not in answer.text


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_token_opens_from_anywhere(token: str, scheme: str) -> None:
    answer = ask(DOCUMENT, client=STRANGER, host="jobs.example.org", headers={"Authorization": f"{scheme} {token}"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"]
)
def test_what_is_not_the_token_does_not_open(token: str, header: str) -> None:
    assert ask(DOCUMENT, headers={"Authorization": header}).status_code == 401


def test_a_token_of_another_alphabet_is_only_wrong(token: str) -> None:
    assert not auth.token_matches("ཀ་ཁ")
    assert not auth.token_matches("\ud800")
    assert not auth.token_matches("")
    assert auth.token_matches(token)


def test_health_is_open_to_everybody(token: str) -> None:
    assert ask("/health/live", client=STRANGER, host="jobs.example.org").json() == {"status": "ok"}


def test_without_a_token_nothing_matches_it() -> None:
    assert not auth.token_matches("")
    assert not auth.token_matches("None")


@pytest.mark.parametrize("client", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000", "segments.localhost"])
def test_without_a_token_this_machine_is_answered(client: str, host: str) -> None:
    assert ask(DOCUMENT, client=client, host=host).status_code == 200


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"client": STRANGER}, f"you come from {STRANGER}"),
        ({"client": "::ffff:203.0.113.5"}, "you come from ::ffff:203.0.113.5"),
        ({"client": "unix"}, "you come from unix"),
        ({"headers": {"X-Forwarded-For": "127.0.0.1"}}, "it has the header x-forwarded-for"),
        ({"headers": {"Forwarded": "for=127.0.0.1"}}, "it has the header forwarded"),
        ({"host": "rebound.example.org"}, "the header Host names another machine"),
        ({"headers": {"Host": "["}}, "the header Host names another machine"),
        ({"method": "POST", "headers": {"Origin": "https://example.org"}}, "for a page from elsewhere"),
        ({"method": "POST", "headers": {"Origin": "null"}}, "for a page from elsewhere"),
        ({"method": "POST", "headers": {"Sec-Fetch-Site": "cross-site"}}, "for a page from elsewhere"),
    ],
)
def test_without_a_token_others_are_told_why_not_and_what_to_do(asked: dict[str, Any], words: str) -> None:
    for path in ("/openapi.json", "/jobs", "/nowhere"):
        answer = ask(path, **asked)
        assert answer.status_code == 403
        assert answer.headers["content-type"] == "application/problem+json"
        assert words in answer.json()["detail"]
        assert "set API_TOKEN" in answer.json()["detail"]
    if "method" not in asked:
        assert ask("/health/live", **asked).status_code == 200


def test_a_page_of_this_machine_may_ask() -> None:
    answer = ask("/openapi.json", "POST", headers={"Origin": "http://localhost:3000"})
    assert answer.status_code == 405


def test_a_client_without_an_address_is_a_stranger() -> None:
    from starlette.requests import Request

    scope: Scope = {"type": "http", "client": None, "headers": [], "method": "GET", "path": "/jobs"}
    assert auth.why_not_local(Request(scope)) == "you come from a socket without an address"


def test_a_stranger_learns_what_is_down_but_not_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """No service is set up: each is down, and says which variables are missing."""
    from app.web.api_health import DOWN

    hidden = ask("/health/ready", client=STRANGER)
    assert hidden.status_code == 503
    assert set(hidden.json()["dependencies"].values()) == {DOWN}
    assert "NEO4J_PASSWORD" in ask("/health/ready").text
    monkeypatch.setenv("API_TOKEN", TOKEN)
    auth.forget_token()
    assert "NEO4J_PASSWORD" not in ask("/health/ready").text
    assert "NEO4J_PASSWORD" in ask("/health/ready", headers={"Authorization": f"Bearer {TOKEN}"}).text


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "only clients on this machine"), ("short", "has only 5 characters"), (TOKEN, "whoever sends it")],
)
def test_the_log_says_at_the_start_who_is_answered(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, value: str | None, words: str
) -> None:
    if value:
        monkeypatch.setenv("API_TOKEN", value)
    with caplog.at_level(logging.INFO):
        auth.announce()
    assert words in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("value", ["two words", "ཀ་ཁ", "tab\tbed"])
def test_a_token_that_no_header_carries_stops_the_start(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("API_TOKEN", value)
    with pytest.raises(ConfigurationError, match="API_TOKEN must be of visible ASCII") as refused:
        auth.announce()
    assert value not in str(refused.value)


def test_the_token_is_not_shown(token: str) -> None:
    assert token not in repr(load_settings("API_TOKEN"))

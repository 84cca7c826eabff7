"""What a lean call does when it is not answered as it should be, and with whose signature it goes out."""

import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import trustme
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.exceptions import ConnectTimeoutError, ReadTimeoutError

from app.errors import ConfigurationError, OutageError, TransientError
from app.sqs import lean
from app.sqs.lean import LeanClient
from app.sqs.queue import Queue, make_client
from app.sqs.signed_post import SignedPost
from tests.support.http_stub import CUT, Stub, serving

REFUSED = (403, {"__type": "com.amazon.coral.service#InvalidSignatureException", "message": "Signature expired"})
THROTTLED = (400, {"__type": "com.amazonaws.sqs#RequestThrottled", "message": "slow down"})
BROKEN = (500, {"__type": "com.amazonaws.sqs#InternalError", "message": "oops"})


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serving() as stub:
        yield stub


def queue_at(stub: Stub, **access: Any) -> Queue:
    client = make_client(
        "us-east-1",
        wait_seconds=access.pop("wait_seconds", 0),
        endpoint_url=stub.url,
        access_key_id=access.pop("access_key_id", "AKID"),
        secret_access_key=access.pop("secret_access_key", "secret"),
        is_lean=True,
        **access,
    )
    return Queue(client, f"{stub.url}/000000000000/segments")


def lean_ones(stub: Stub) -> list[bool]:
    return [asked.is_lean for asked in stub.asked]


def key_of(stub: Stub, at: int) -> str:
    return stub.asked[at].headers["Authorization"].partition("Credential=")[2].partition("/")[0]


def test_calls_say_what_boto3_says(stub: Stub) -> None:
    queue, plain = (
        queue_at(stub),
        Queue(
            make_client("us-east-1", endpoint_url=stub.url, access_key_id="AKID", secret_access_key="secret"),
            f"{stub.url}/000000000000/segments",
        ),
    )
    for each in (queue, plain):
        each.receive(10, 0, 60)
        each.delete(["one", "two"])
        each.hide([("one", 5)])
    short, long = stub.asked[:3], stub.asked[3:]
    assert lean_ones(stub) == [True] * 3 + [False] * 3
    assert [asked.body for asked in short] == [asked.body for asked in long]
    for name in ("X-Amz-Target", "Content-Type"):
        assert [asked.headers[name] for asked in short] == [asked.headers[name] for asked in long]
    assert all("SignedHeaders=" in asked.headers["Authorization"] for asked in short)


@pytest.mark.parametrize("token", [None, "a/token+of=sts"])
def test_calls_are_signed_as_botocore_signs(stub: Stub, monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    queue_at(stub, access_key_id="AKID", secret_access_key="s:e/c+r%et", session_token=token).delete(["one – é"])
    (asked,) = stub.asked
    moment = datetime.strptime(asked.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *_, **__: moment)
    headers = {name: asked.headers[name] for name in ("X-Amz-Target", "Content-Type")}
    request = AWSRequest("POST", f"{stub.url}/", headers, asked.raw)
    SigV4Auth(Credentials("AKID", "s:e/c+r%et", token), "sqs", "us-east-1").add_auth(request)
    assert asked.headers["Authorization"] == request.headers["Authorization"]
    assert asked.headers.get("X-Amz-Security-Token") == token


def test_new_credentials_sign_the_next_call(stub: Stub) -> None:
    queue = queue_at(stub)
    client: Any = queue._client
    queue.receive(10, 0, 60)
    client._credentials = Credentials("AKID2", "secret", "token")
    queue.receive(10, 0, 60)
    client._credentials = Credentials("AKID3", "secret")
    queue.receive(10, 0, 60)
    assert [key_of(stub, at) for at in range(3)] == ["AKID", "AKID2", "AKID3"]
    assert [asked.headers.get("X-Amz-Security-Token") for asked in stub.asked] == [None, "token", None]


def test_threads_do_not_share_a_connection(stub: Stub) -> None:
    queue = queue_at(stub)
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda at: queue.delete([f"handle {at}"]), range(40)))
    assert replies == [{}] * 40
    assert {asked.body["Entries"][0]["ReceiptHandle"] for asked in stub.asked} == {f"handle {at}" for at in range(40)}


def test_a_server_is_trusted_by_the_configured_ca_bundle_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = trustme.CA()
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    with serving(tls) as stub:
        with pytest.raises(OutageError, match="SSLError"):
            queue_at(stub).receive(10, 0, 60)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
        assert queue_at(stub).receive(10, 0, 60) == []
        assert lean_ones(stub) == [True]


def test_credentials_that_expire_are_refreshed_as_boto3_does(stub: Stub) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    fresh = {"access_key": "FRESH", "secret_key": "s", "token": "t", "expiry_time": later}
    credentials = RefreshableCredentials("STALE", "s", "t", soon, lambda: fresh, "a test")
    plain: Any = make_client("us-east-1", endpoint_url=stub.url, access_key_id="AKID", secret_access_key="secret")
    session = botocore.session.get_session()
    post = SignedPost(f"{stub.url}/", "us-east-1", session, connect_seconds=1, answer_seconds=5)
    client: Any = LeanClient(plain, credentials, post)
    Queue(client, f"{stub.url}/0/segments").receive(10, 0, 60)
    assert key_of(stub, 0) == "FRESH"


@pytest.mark.parametrize(
    ("answer", "kind"), [(REFUSED, TransientError), (THROTTLED, TransientError)], ids=["clock skew", "throttled"]
)
def test_what_is_refused_is_asked_as_boto3_asks_and_so_is_all_for_a_while(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, answer: tuple[int, dict[str, Any]], kind: type[Exception]
) -> None:
    queue = queue_at(stub, wait_seconds=1)
    stub.script = [answer, answer]
    with pytest.raises(kind):
        queue.receive(10, 0, 60)
    assert queue.receive(10, 0, 60) == []
    assert lean_ones(stub) == [True, False, False]
    monkeypatch.setattr(lean, "REST_SECONDS", -1.0)
    client: Any = queue._client
    client._rest()
    queue.receive(10, 0, 60)
    assert lean_ones(stub)[-1]


@pytest.mark.parametrize("answer", [BROKEN, (CUT, {})], ids=["a server error", "a cut connection"])
def test_a_poll_that_may_have_been_answered_is_not_repeated(stub: Stub, answer: tuple[int, dict[str, Any]]) -> None:
    queue = queue_at(stub, wait_seconds=1)
    stub.script = [answer]
    with pytest.raises(OutageError, match="the queue 'segments'"):
        queue.receive(10, 0, 60)
    assert len(stub.asked) == 1


def test_time_outs_are_told_apart() -> None:
    session = botocore.session.get_session()
    credentials = Credentials("AKID", "secret").get_frozen_credentials()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        post = SignedPost(url, "us-east-1", session, connect_seconds=5, answer_seconds=0.2)
        with pytest.raises(ReadTimeoutError):
            post.send("AmazonSQS.ReceiveMessage", b"{}", credentials)
    with socket.socket() as full, ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # more than it keeps: the next one's connection is not answered
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/"
        post = SignedPost(url, "us-east-1", session, connect_seconds=0.2, answer_seconds=5)
        with pytest.raises(ConnectTimeoutError):
            post.send("AmazonSQS.ReceiveMessage", b"{}", credentials)


@pytest.mark.parametrize("answer", [BROKEN, THROTTLED, (CUT, {})], ids=["a server error", "throttled", "a cut"])
def test_what_may_be_repeated_is_repeated_by_boto3(stub: Stub, answer: tuple[int, dict[str, Any]]) -> None:
    queue = queue_at(stub)
    stub.script = [answer]
    assert queue.delete(["one"]) == {}
    assert lean_ones(stub) == [True, False]


def test_without_credentials_it_is_told_as_ever(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    client = make_client("us-east-1", endpoint_url=stub.url, is_lean=True)
    with pytest.raises(ConfigurationError, match="no AWS credentials"):
        Queue(client, f"{stub.url}/0/segments").receive(10, 0, 60)
    assert stub.asked == []


def test_a_proxy_of_the_environment_is_used(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", stub.url)
    monkeypatch.setenv("NO_PROXY", "")
    client = make_client(
        "us-east-1", endpoint_url="http://sqs.invalid", access_key_id="AKID", secret_access_key="s", is_lean=True
    )
    Queue(client, "http://sqs.invalid/0/segments").receive(10, 0, 60)
    assert stub.asked[0].path == "http://sqs.invalid/"
    assert stub.asked[0].is_lean

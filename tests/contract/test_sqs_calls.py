"""Receive, delete and hide by boto3 and by the lean road, on two implementations of SQS: the same in every way."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from app.sqs.queue import Outgoing, Queue, make_client, text_attribute
from devstack.stack import Stack
from tests.support.services import receive_all

type Opened = Callable[[], Queue]
ATTRIBUTES = {"why": text_attribute("a reason"), "raw": {"DataType": "Binary", "BinaryValue": b"\x00\xff"}}


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    """An SQS made by others."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["the stack's", "moto's"])
def endpoint_url(request: pytest.FixtureRequest) -> str:
    if request.param == "moto's":
        return str(request.getfixturevalue("moto_url"))
    stack: Stack = request.getfixturevalue("stack")
    return stack.env()["AWS_ENDPOINT_URL_SQS"]


@pytest.fixture(params=[False, True], ids=["boto3", "lean"])
def queue(request: pytest.FixtureRequest, endpoint_url: str) -> Queue:
    """A queue of its own."""
    client = make_client(
        "us-east-1", endpoint_url=endpoint_url, access_key_id="a", secret_access_key="b", is_lean=request.param
    )
    return Queue(client, client.create_queue(QueueName=f"calls-{uuid.uuid4().hex}")["QueueUrl"])


def test_messages_come_with_all_that_they_were_sent_with(queue: Queue) -> None:
    sent = [Outgoing(f"body {n} – é", attributes=ATTRIBUTES) for n in range(12)]
    assert queue.send(sent) == {}
    messages: list[Any] = receive_all(queue, 12)
    assert {message["Body"] for message in messages} == {each.body for each in sent}
    for message in messages:
        assert message["MessageAttributes"]["why"]["StringValue"] == "a reason"
        assert message["MessageAttributes"]["raw"]["BinaryValue"] == b"\x00\xff"
        assert int(message["Attributes"]["ApproximateReceiveCount"]) == 1
        assert int(message["Attributes"]["SentTimestamp"]) > 0
        assert message["MessageId"]
    assert queue.delete([message["ReceiptHandle"] for message in messages]) == {}
    assert queue.facts().messages == 0


def test_what_was_received_can_be_sent_on_as_it_is(queue: Queue) -> None:
    queue.send([Outgoing("m", attributes=ATTRIBUTES)])
    (first,) = receive_all(queue, 1)
    assert queue.send([Outgoing("again", attributes=first["MessageAttributes"])]) == {}
    (second,) = receive_all(queue, 1)
    assert second["MessageAttributes"]["raw"]["BinaryValue"] == b"\x00\xff"


def test_an_empty_queue_gives_nothing(queue: Queue) -> None:
    assert queue.receive(10, 0, 30) == []


def test_what_is_hidden_for_nothing_comes_back_at_once(queue: Queue) -> None:
    queue.send([Outgoing("m")])
    (message,) = receive_all(queue, 1)
    assert queue.receive(10, 0, 30) == []
    assert queue.hide([(message["ReceiptHandle"], 0)]) == {}
    (again,) = receive_all(queue, 1)
    assert again["Attributes"]["ApproximateReceiveCount"] == "2"


def test_a_refused_entry_is_told_by_its_position(queue: Queue) -> None:
    queue.send([Outgoing("m")])
    (message,) = receive_all(queue, 1)
    assert list(queue.hide([(message["ReceiptHandle"], 5), ("no receipt", 5)])) == [1]


def test_the_queue_s_clock_is_told_by_its_answers(queue: Queue) -> None:
    assert queue._answered is None
    queue.receive(10, 0, 30)
    assert queue._answered is not None

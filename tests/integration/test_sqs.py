"""The queue adapter on a real SQS-compatible server: batches, refusals inside success, errors in our words."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from app.errors import ConfigurationError, OutageError
from app.sqs.queue import Outgoing, Queue, make_client, text_attribute
from devstack.proxy import Proxy
from devstack.stack import Stack
from tests.support.services import Queues, receive_all, sqs_client


def test_more_than_a_batch_is_sent_received_and_deleted(queues: Queues) -> None:
    assert queues.segments.send([Outgoing(f"m{n}") for n in range(25)]) == {}
    messages = receive_all(queues.segments, 25)
    assert sorted(str(m["Body"]) for m in messages) == sorted(f"m{n}" for n in range(25))
    assert queues.segments.delete([str(m["ReceiptHandle"]) for m in messages]) == {}
    assert queues.segments.facts().messages == 0


class Terse:
    """A client that somebody else has made, whose answers hold what was asked for and nothing else."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)

        def terse(**arguments: Any) -> dict[str, Any]:
            return {key: value for key, value in call(**arguments).items() if key != "ResponseMetadata"}

        return terse


def test_a_client_that_tells_no_date_will_do(queues: Queues) -> None:
    queue = Queue(cast(Any, Terse(queues.segments._client)), queues.segments.url)
    assert queue.send([Outgoing("m")]) == {}
    (message,) = receive_all(queue, 1)
    assert queue.delete([str(message["ReceiptHandle"])]) == {}
    assert queue.facts().messages == 0
    assert abs(queue.now_ms() - queues.segments.now_ms()) < 60_000


def test_large_messages_are_split_into_batches_that_sqs_takes(queues: Queues) -> None:
    assert queues.segments.send([Outgoing("x" * 100_000) for _ in range(6)]) == {}
    assert len(receive_all(queues.segments, 6)) == 6


def test_attributes_and_delay_travel(queues: Queues) -> None:
    queues.segments.send([Outgoing("m", 1, {"reason": text_attribute("why")})])
    assert queues.segments.receive(10, 0, 60) == []
    message = receive_all(queues.segments, 1)[0]
    assert message["MessageAttributes"]["reason"]["StringValue"] == "why"
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"


def test_a_refused_entry_of_a_delete_is_noticed(queues: Queues) -> None:
    queues.segments.send([Outgoing("m")])
    handle = str(receive_all(queues.segments, 1)[0]["ReceiptHandle"])
    refused = queues.segments.delete([handle, "no-such-handle"])
    assert list(refused) == [1]
    assert queues.segments.facts().messages == 0


def test_hidden_for_nothing_it_is_there_at_once(queues: Queues) -> None:
    queues.segments.send([Outgoing("m")])
    handle = str(receive_all(queues.segments, 1)[0]["ReceiptHandle"])
    assert queues.segments.receive(10, 0, 60) == []
    assert queues.segments.hide([(handle, 0)]) == {}
    assert len(receive_all(queues.segments, 1)) == 1


def test_facts(make_queues: Callable[..., Queues]) -> None:
    queues = make_queues(max_receive_count=7)
    queues.segments.send([Outgoing("m")] * 3)
    facts = queues.segments.facts()
    assert (facts.max_receive_count, facts.is_fifo, facts.messages) == (7, False, 3)
    receive_all(queues.segments, 1)
    facts = queues.segments.facts()
    assert (facts.messages, facts.waiting) == (3, 0)
    assert queues.dead_letters.facts().max_receive_count is None


def test_a_fifo_queue_is_served_with_a_deduplication_id(stack: Stack) -> None:
    queue = Queue(sqs_client(stack), stack.make_queue("announcements", fifo=True))
    assert queue.facts().is_fifo
    assert queue.send([Outgoing("a", deduplication_id="job-1"), Outgoing("a", deduplication_id="job-1")]) == {}
    assert len(receive_all(queue, 1)) == 1
    queue.purge()


def test_a_missing_queue_is_named(stack: Stack, queues: Queues) -> None:
    missing = Queue(sqs_client(stack), queues.segments.url + "-missing")
    for call in (missing.facts, lambda: missing.receive(1, 0, 30), lambda: missing.send([Outgoing("m")])):
        with pytest.raises(ConfigurationError, match="-missing' does not exist"):
            call()


def test_a_server_that_is_not_there_is_an_outage(stack: Stack, queues: Queues) -> None:
    with Proxy.before(stack.env()["AWS_ENDPOINT_URL_SQS"]) as proxy:
        client = make_client(
            "us-east-1",
            endpoint_url=f"http://127.0.0.1:{proxy.port}",
            access_key_id="x",
            secret_access_key="x",
        )
        queue = Queue(client, queues.segments.url)
        assert queue.facts().messages == 0
        proxy.cut()
        with pytest.raises(OutageError, match="SQS does not answer"):
            queue.facts()
        proxy.heal()
        assert queue.facts().messages == 0

"""What plain boto3 takes to receive messages and to delete them, by tens: the measure that the worker is held against.

Invariant: processor time of the calls alone, made one after the other with the client's defaults, on messages like a
job's own.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import boto3

from bench import jobs
from bench.ground import Arena

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


def measure(arena: Arena, bodies: Sequence[str]) -> float:
    """Milliseconds of processor time a message; nobody else may receive from the arena's queue."""
    jobs.send(arena, bodies)
    sqs = boto3.client(
        "sqs",
        region_name=arena.environment["AWS_REGION"],
        endpoint_url=arena.environment["AWS_ENDPOINT_URL_SQS"],
        aws_access_key_id=arena.environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=arena.environment["AWS_SECRET_ACCESS_KEY"],
    )
    began = time.process_time()
    moved = 0
    while moved < len(bodies):
        moved += _move_ten(sqs, arena.queue_url)
    return (time.process_time() - began) * 1000 / moved


def _move_ten(sqs: "SQSClient", queue_url: str) -> int:
    answer = sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=jobs.MESSAGES_PER_CALL, WaitTimeSeconds=1)
    messages = answer.get("Messages", [])
    if messages:
        entries: list[Any] = [
            {"Id": str(at), "ReceiptHandle": each["ReceiptHandle"]} for at, each in enumerate(messages)
        ]
        deleted = sqs.delete_message_batch(QueueUrl=queue_url, Entries=entries)
        assert not deleted.get("Failed"), "SQS refused to delete messages"
    return len(messages)

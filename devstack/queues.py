"""Queues are made to exist: making one that is there with the same settings changes nothing, loses no message."""

import json
from functools import cache
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.literals import QueueAttributeNameType

REGION = "us-east-1"
ACCESS_KEY = "devstack"
SECRET_KEY = "devstack"
INPUT, COMPLETED, DEAD_LETTERS = "segments", "segments-completed", "segments-dead-letters"
CALL_TIMEOUT_SECONDS = 3
INPUT_VISIBILITY_SECONDS = 60
"""The default of SQS_VISIBILITY_TIMEOUT_SECONDS."""


@cache
def client(url: str) -> "SQSClient":
    """A client of the server at `url` that gives up soon and does not retry by itself."""
    return boto3.client(
        "sqs",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(
            connect_timeout=CALL_TIMEOUT_SECONDS,
            read_timeout=CALL_TIMEOUT_SECONDS,
            retries={"total_max_attempts": 1},
        ),
    )


def make_queue(
    url: str,
    name: str,
    *,
    dead_letter_queue: str | None = None,
    max_receive_count: int = 10,
    visibility_timeout_seconds: int = 30,
    fifo: bool = False,
) -> str:
    """Make a queue if it is missing; its URL. `dead_letter_queue` is a queue's URL; FIFO names get `.fifo`."""
    attributes: dict[QueueAttributeNameType, str] = {"VisibilityTimeout": str(visibility_timeout_seconds)}
    if fifo:
        attributes["FifoQueue"] = "true"
        name = name if name.endswith(".fifo") else f"{name}.fifo"
    if dead_letter_queue:
        target = _arn(url, dead_letter_queue)
        policy = {"deadLetterTargetArn": target, "maxReceiveCount": max_receive_count}
        attributes["RedrivePolicy"] = json.dumps(policy)
    return client(url).create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]


def make_standard_queues(url: str) -> dict[str, str]:
    """The three queues of the contract, by variable name."""
    dead_letters = make_queue(url, DEAD_LETTERS)
    return {
        "SQS_QUEUE_URL": _make_input_queue(url, dead_letters),
        "SQS_COMPLETED_QUEUE_URL": make_queue(url, COMPLETED),
        "SQS_DEAD_LETTER_QUEUE_URL": dead_letters,
    }


def _make_input_queue(url: str, dead_letters: str) -> str:
    """As `python -m app.jobs doctor` wants it; one that an older version of us has made is changed."""
    seconds = INPUT_VISIBILITY_SECONDS
    try:
        return make_queue(url, INPUT, dead_letter_queue=dead_letters, visibility_timeout_seconds=seconds)
    except client(url).exceptions.QueueNameExists:
        queue = client(url).get_queue_url(QueueName=INPUT)["QueueUrl"]
        client(url).set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": str(seconds)})
        return queue


def _arn(url: str, queue_url: str) -> str:
    answer = client(url).get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
    return answer["Attributes"]["QueueArn"]

"""One SQS queue as the rest of the code sees it: batch calls whose failed entries are noticed, errors in our words.

Invariant: no call here loses an entry silently: what SQS refuses inside a successful reply is returned or raised.
Quotas: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
"""

import gzip
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
from botocore.loaders import JSONFileLoader
from botocore.session import Session, get_session

from app.core.meter import NO_METER, Meter
from app.errors import ConfigurationError, OutageError, ProcessorError, TransientError
from app.sqs.lean import LeanClient
from app.sqs.signed_post import USER_AGENT, SignedPost

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

SERVICE: Final = "SQS"
MAX_BATCH_ENTRIES: Final = 10
MAX_BATCH_BYTES: Final = 256 * 1024
"""Of a batch in all, in older accounts; newer ones take 1 MiB. A larger message travels alone."""
MESSAGE_LIMITS_BYTES: Final = (256 * 1024, 1024 * 1024)
"""Of one message with its attributes, in older accounts and in newer ones."""
MAX_DELAY_SECONDS: Final = 900
MAX_VISIBILITY_SECONDS: Final = 43_200
"""Counted from the receive, not from the call."""
CONNECT_TIMEOUT_SECONDS: Final = 3
CALL_TIMEOUT_SECONDS: Final = 5

_MISSING: Final = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "NonExistentQueue"})
_REFUSED: Final = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
        "AWS.SimpleQueueService.InvalidAddress",
        "InvalidAddress",
    }
)
_THROTTLED: Final = frozenset({"Throttling", "ThrottlingException", "RequestThrottled", "TooManyRequestsException"})


def open_session() -> Session:
    """What clients are made from; by one thread at a time."""
    session = get_session()
    loader: Any = session.get_component("data_loader")

    def list_folders(_kind: str) -> list[str]:
        """Every folder is taken for a service: to look into each of the four hundred takes longer than all else."""
        return [name for path in loader.search_paths if Path(path).is_dir() for name in os.listdir(path)]

    loader.list_available_services = list_folders
    loader.file_loader = _Descriptions()
    return session


class _Descriptions(JSONFileLoader):
    """botocore's descriptions of services and endpoints, decoded in a third of the time and without ordered dicts."""

    def load_file(self, file_path: str) -> Any:
        """What `file_path` with its suffix holds; None if there is no such file."""
        for suffix, open_file in ((".json", open), (".json.gz", gzip.open)):
            with suppress(FileNotFoundError), open_file(f"{file_path}{suffix}", "rb") as file:
                return msgspec.json.decode(file.read())
        return None


def make_client(
    region: str | None,
    *,
    wait_seconds: int = 0,
    connections: int = 10,
    endpoint_url: str | None = None,
    access_key_id: str | None = None,
    secret_access_key: str | None = None,
    session_token: str | None = None,
    is_lean: bool = False,
    session: Session | None = None,
) -> "SQSClient":
    """A thread-safe client whose waits are bounded; a long poll of `wait_seconds` fits inside its read time-out.

    A poll is not repeated by itself: one that was cut may have been answered, and its messages are hidden by then.
    Without keys the default AWS credential chain serves, so that IAM roles work. `is_lean`: what every batch calls
    goes a shorter road than boto3's (app/sqs/lean.py). `session`: shared by clients that are made one after the other;
    only the first then reads the descriptions of services.
    """
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=wait_seconds + CALL_TIMEOUT_SECONDS,
        retries={"mode": "standard", "total_max_attempts": 1 if wait_seconds else 2},
        max_pool_connections=connections,
        tcp_keepalive=True,
        # Both spare a third of a millisecond a call: putting together who we are, and checking our own arguments.
        user_agent=USER_AGENT,
        parameter_validation=False,
    )
    session = session or open_session()
    client = cast(
        "SQSClient",
        session.create_client(
            "sqs",
            region_name=region,
            endpoint_url=endpoint_url,
            aws_access_key_id=access_key_id,
            aws_secret_access_key=secret_access_key,
            aws_session_token=session_token,
            config=config,
        ),
    )
    if not is_lean:
        return client
    if access_key_id and secret_access_key:
        credentials: Credentials | None = Credentials(access_key_id, secret_access_key, session_token)
    else:
        credentials = session.get_credentials()
    post = SignedPost(
        f"{client.meta.endpoint_url.rstrip('/')}/",
        client.meta.region_name,
        session,
        connect_seconds=CONNECT_TIMEOUT_SECONDS,
        answer_seconds=CONNECT_TIMEOUT_SECONDS + wait_seconds + CALL_TIMEOUT_SECONDS,
    )
    return cast("SQSClient", LeanClient(client, credentials, post))


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send. `attributes` are strings; `delay_seconds` at most 900, not for a FIFO queue."""

    body: str
    delay_seconds: int = 0
    attributes: Mapping[str, Any] = field(default_factory=dict)
    deduplication_id: str | None = None


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """What a queue says of itself. `max_receive_count` is None without a redrive policy."""

    max_receive_count: int | None
    is_fifo: bool
    messages: int
    """Visible, hidden and delayed together; approximately, as all that SQS counts."""
    waiting: int = 0
    """Those that a receive would get now."""


class Queue:
    """A queue by its URL. Raises `OutageError`, `TransientError` or `ConfigurationError`."""

    def __init__(self, client: "SQSClient", url: str, meter: Meter = NO_METER) -> None:
        self._client = client
        self._meter = meter
        self.url = url
        self.name = url.rsplit("/", 1)[-1]
        self.is_fifo = self.name.endswith(".fifo")
        self._answered: tuple[str, float] | None = None

    def now_ms(self) -> int:
        """Milliseconds since the epoch on SQS's clock, as its last answer told it to the second.

        When none has told, this machine's.
        """
        if self._answered is None:
            return int(time.time() * 1000)
        date, answered_at = self._answered
        return int((parsedate_to_datetime(date).timestamp() + time.monotonic() - answered_at) * 1000)

    def attributes(self) -> dict[str, str]:
        """All that SQS tells of the queue, under its own names."""
        with _Translated(self.name), self._meter.call(SERVICE):
            reply = self._client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])
        self._note(reply)
        values: Any = reply.get("Attributes", {})
        return dict(values)

    def facts(self) -> QueueFacts:
        """Ask the queue about itself; also the probe for whether SQS answers."""
        values = self.attributes()
        policy = json.loads(values.get("RedrivePolicy") or "{}")
        count = policy.get("maxReceiveCount")
        counters = ("", "NotVisible", "Delayed")
        return QueueFacts(
            max_receive_count=int(count) if count is not None else None,
            is_fifo=self.is_fifo or values.get("FifoQueue") == "true",
            messages=sum(int(values.get(f"ApproximateNumberOfMessages{c}", 0)) for c in counters),
            waiting=int(values.get("ApproximateNumberOfMessages", 0)),
        )

    def receive(self, most: int, wait_seconds: int, visibility_seconds: int) -> list[Any]:
        """Up to `most` (1 to 10) messages as boto3 gives them, with their attributes; none after `wait_seconds`."""
        with _Translated(self.name), self._meter.call(SERVICE):
            reply = self._client.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=most,
                WaitTimeSeconds=wait_seconds,
                VisibilityTimeout=visibility_seconds,
                MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
                MessageAttributeNames=["All"],
            )
        self._note(reply)
        return list(reply.get("Messages", ()))

    def delete(self, handles: Sequence[str]) -> dict[int, str]:
        """Delete by receipt handle; position to reason of those that SQS did not delete."""
        return self._in_batches(self._client.delete_message_batch, [{"ReceiptHandle": handle} for handle in handles])

    def hide(self, handles: Sequence[tuple[str, int]]) -> dict[int, str]:
        """Make each (receipt handle, seconds) visible again after so long; position to reason of the refused."""
        return self._in_batches(
            self._client.change_message_visibility_batch,
            [{"ReceiptHandle": handle, "VisibilityTimeout": seconds} for handle, seconds in handles],
        )

    def send(self, messages: Sequence[Outgoing]) -> dict[int, str]:
        """Send, ten a call; position to reason of those that are not on the queue.

        When a later call of several fails as a whole, the positions that it held are among the refused.
        """
        return self._in_batches(self._client.send_message_batch, [self._entry(message) for message in messages])

    def refused_rights(self, wanted: Sequence[str]) -> dict[str, str]:
        """Which of the rights to send, delete and hide we are refused, with the reason, as far as empty calls tell.

        AWS asks for the right before it finds a batch empty. Receiving can't be tried without doing it.
        """
        calls: dict[str, Any] = {
            "sqs:SendMessage": self._client.send_message_batch,
            "sqs:DeleteMessage": self._client.delete_message_batch,
            "sqs:ChangeMessageVisibility": self._client.change_message_visibility_batch,
        }
        refused: dict[str, str] = {}
        for right in wanted:
            try:
                with _Translated(self.name):
                    calls[right](QueueUrl=self.url, Entries=[])
            except ConfigurationError as error:
                refused[right] = str(error)
            except TransientError as error:
                if isinstance(error, OutageError):
                    raise
        return refused

    def purge(self) -> None:
        """Empty the queue; AWS allows it once in 60 s."""
        with _Translated(self.name), self._meter.call(SERVICE):
            self._client.purge_queue(QueueUrl=self.url)

    def _entry(self, message: Outgoing) -> dict[str, Any]:
        entry: dict[str, Any] = {"MessageBody": message.body}
        if message.attributes:
            entry["MessageAttributes"] = dict(message.attributes)
        if self.is_fifo:
            entry["MessageGroupId"] = entry["MessageDeduplicationId"] = message.deduplication_id
        elif message.delay_seconds:
            entry["DelaySeconds"] = min(message.delay_seconds, MAX_DELAY_SECONDS)
        return entry

    def _note(self, reply: Mapping[str, Any]) -> None:
        """Keep the date of an answer; a client that is not boto3's need not tell it."""
        if date := reply.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date"):
            self._answered = date, time.monotonic()

    def _in_batches(self, call: Any, entries: Sequence[dict[str, Any]]) -> dict[int, str]:
        refused: dict[int, str] = {}
        first = True
        for batch in _batches(entries):
            try:
                with _Translated(self.name), self._meter.call(SERVICE):
                    reply = call(QueueUrl=self.url, Entries=[{"Id": str(at), **entries[at]} for at in batch])
            except ProcessorError as error:
                if first:
                    raise
                refused.update(dict.fromkeys(batch, str(error)))
                continue
            first = False
            self._note(reply)
            for failure in reply.get("Failed", ()):
                refused[int(failure["Id"])] = str(failure.get("Message") or failure["Code"])
        return refused


def make_queue(url: str, **access: Any) -> Queue:
    """The queue at `url`, through a client of its own; `access`: see `make_client`. Connects to nothing."""
    return Queue(make_client(**access), url)


def text_attribute(text: str) -> dict[str, str]:
    """A message attribute that holds `text`."""
    return {"DataType": "String", "StringValue": text}


def _batches(entries: Sequence[Mapping[str, Any]]) -> Iterator[list[int]]:
    """Positions, in runs that one batch call takes."""
    batch: list[int] = []
    size = 0
    for at, entry in enumerate(entries):
        weight = size_bytes(str(entry.get("MessageBody", "")), entry.get("MessageAttributes", {}))
        if batch and (len(batch) == MAX_BATCH_ENTRIES or size + weight > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(at)
        size += weight
    if batch:
        yield batch


def size_bytes(body: str, attributes: Mapping[str, Any]) -> int:
    """What a message counts for against SQS's limits."""
    return len(body.encode("utf-8", "surrogatepass")) + sum(
        len(name) + sum(len(part) for part in value.values() if isinstance(part, str | bytes))
        for name, value in attributes.items()
    )


class _Translated:
    """A context in which botocore's errors become ours."""

    def __init__(self, queue: str) -> None:
        self._queue = queue

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, ClientError | BotoCoreError):
            raise translate(error, self._queue) from error


def translate(error: ClientError | BotoCoreError, queue: str) -> ProcessorError:
    """`error` as one of ours; `queue` is named in it."""
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return ConfigurationError(f"no AWS credentials for the queue {queue!r}: {error}")
    if not isinstance(error, ClientError):
        return OutageError(SERVICE, f"{type(error).__name__} at the queue {queue!r}")
    details = error.response.get("Error", {})
    code, message = details.get("Code", ""), details.get("Message", "")
    if code in _MISSING:
        return ConfigurationError(f"the queue {queue!r} does not exist ({code})")
    if code in _REFUSED:
        return ConfigurationError(f"AWS refuses access to the queue {queue!r} ({code}): {message}")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status >= 500:
        return OutageError(SERVICE, f"{code or status} at the queue {queue!r}")
    if code in _THROTTLED:
        return TransientError(f"SQS throttles the queue {queue!r} ({code})")
    return TransientError(f"SQS refuses a call on the queue {queue!r} ({code}): {message}")

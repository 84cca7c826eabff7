"""The three calls that every batch makes, of a shape that never changes: receive, delete, hide.

Invariant: boto3's answers at a fifth of its processor time. Credentials and endpoint are botocore's, sending is
`app.sqs.signed_post`; what a call of any shape needs (models, validation, events, parsers) is left out. Whatever is not
answered with 200 is left to boto3 and its rules, and so are all calls for a while.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-making-api-requests-json.html
"""

import base64
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from app.sqs.signed_post import SignedPost

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

REST_SECONDS: Final = 30.0
"""For how long boto3 makes all calls after one that was not answered with 200."""
OK: Final = 200
SERVER_ERROR: Final = 500


class LeanClient:
    """A client of SQS: these calls by a short road, all others as boto3 makes them. Safe to share between threads."""

    def __init__(self, client: "SQSClient", credentials: Credentials | None, post: SignedPost) -> None:
        """`client`: for everything else. `credentials` None: there are none, boto3 says so."""
        self._client = client
        self._credentials = credentials
        self._post = post
        self._rests_until = 0.0

    def __getattr__(self, name: str) -> Any:
        """What is not here is boto3's."""
        return getattr(self._client, name)

    def receive_message(self, **parameters: Any) -> Any:
        """As boto3's. A poll that is cut is not repeated: it may have been answered."""
        if not self._may_call():
            return self._client.receive_message(**parameters)
        status, reply = self._send("ReceiveMessage", parameters)
        if status == OK:
            return _decoded(reply)
        self._rest()
        if status >= SERVER_ERROR:
            raise _as_client_error(status, reply, "ReceiveMessage")
        return self._client.receive_message(**parameters)

    def delete_message_batch(self, **parameters: Any) -> Any:
        """As boto3's."""
        return self._call("DeleteMessageBatch", parameters, self._client.delete_message_batch)

    def change_message_visibility_batch(self, **parameters: Any) -> Any:
        """As boto3's."""
        return self._call("ChangeMessageVisibilityBatch", parameters, self._client.change_message_visibility_batch)

    def _call(self, operation: str, parameters: Mapping[str, Any], as_boto3: Callable[..., Any]) -> Any:
        """What may be repeated is: by boto3, when this way leads nowhere."""
        if self._may_call():
            try:
                status, reply = self._send(operation, parameters)
            except BotoCoreError:
                status, reply = 0, {}
            if status == OK:
                return reply
            self._rest()
        return as_boto3(**parameters)

    def _may_call(self) -> bool:
        return self._credentials is not None and time.monotonic() >= self._rests_until

    def _rest(self) -> None:
        self._rests_until = time.monotonic() + REST_SECONDS

    def _frozen(self) -> ReadOnlyCredentials:
        """The credentials as they are now, refreshed when it is time. Raises `BotoCoreError`."""
        if self._credentials is None:
            raise NoCredentialsError
        return self._credentials.get_frozen_credentials()

    def _send(self, operation: str, parameters: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and body, with the answer's date where boto3 puts it. Raises `BotoCoreError`."""
        response = self._post.send(f"AmazonSQS.{operation}", msgspec.json.encode(parameters), self._frozen())
        try:
            reply = msgspec.json.decode(response.content, type=dict[str, Any]) if response.content else {}
        except msgspec.DecodeError:
            reply = {}
        reply["ResponseMetadata"] = {"HTTPStatusCode": response.status, "HTTPHeaders": {"date": response.date}}
        return response.status, reply


def _decoded(reply: dict[str, Any]) -> dict[str, Any]:
    """Binary attributes are bytes, as boto3 gives them and takes them."""
    for message in reply.get("Messages", ()):
        for attribute in message.get("MessageAttributes", {}).values():
            if "BinaryValue" in attribute:
                attribute["BinaryValue"] = base64.b64decode(attribute["BinaryValue"])
    return reply


def _as_client_error(status: int, reply: Mapping[str, Any], operation: str) -> ClientError:
    code = str(reply.get("__type", status)).rpartition("#")[2]
    details: Any = {
        "Error": {"Code": code, "Message": str(reply.get("message", ""))},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(details, operation)

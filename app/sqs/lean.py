"""The three calls that every batch makes, of a shape that never changes: receive, delete, hide.

Invariant: a call is put together once and signed by botocore's own signer, with its credentials, endpoint, proxies and
CA bundle; what a call of any shape needs (models, validation, events, parsers) is left out, which is half of what it
costs. Whatever is not answered with 200 is left to boto3 and its rules, and so are all calls for a while.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-making-api-requests-json.html
"""

import base64
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from botocore.httpsession import URLLib3Session
from botocore.session import Session
from botocore.utils import get_environ_proxies

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

REST_SECONDS: Final = 30.0
"""For how long boto3 makes all calls after one that was not answered with 200."""
SIGNATURE_SECONDS: Final = 60.0
"""For how long the same request is sent with the same signature; AWS takes it for five minutes."""
OK: Final = 200
SERVER_ERROR: Final = 500

type Signed = tuple[float, ReadOnlyCredentials, AWSPreparedRequest]


class LeanClient:
    """A client of SQS: these calls by a short road, all others as boto3 makes them. Safe to share between threads."""

    def __init__(self, client: "SQSClient", credentials: Credentials | None, http: URLLib3Session) -> None:
        """`client`: for everything else. `credentials` None: there are none, boto3 says so."""
        self._client = client
        self._credentials = credentials
        self._http = http
        self._region = client.meta.region_name
        self._url = client.meta.endpoint_url.rstrip("/") + "/"
        self._polls: dict[bytes, Signed] = {}
        self._rests_until = 0.0

    def __getattr__(self, name: str) -> Any:
        """What is not here is boto3's."""
        return getattr(self._client, name)

    def receive_message(self, **parameters: Any) -> Any:
        """As boto3's. A poll that is cut is not repeated: it may have been answered."""
        if not self._may_call():
            return self._client.receive_message(**parameters)
        body = _to_json(parameters)
        status, reply = self._send(self._signed_poll(body))
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
                status, reply = self._send(self._sign(operation, _to_json(parameters)))
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

    def _signed_poll(self, body: bytes) -> AWSPreparedRequest:
        """Polls differ in nothing but the moment, and one signature serves many."""
        now, credentials = time.monotonic(), self._frozen()
        known = self._polls.get(body)
        if known is not None and known[0] > now and known[1] == credentials:
            return known[2]
        request = self._sign("ReceiveMessage", body)
        self._polls = {body: (now + SIGNATURE_SECONDS, credentials, request)}
        return request

    def _sign(self, operation: str, body: bytes) -> AWSPreparedRequest:
        headers = {
            "X-Amz-Target": f"AmazonSQS.{operation}",
            "Content-Type": "application/x-amz-json-1.0",
            "User-Agent": "segment-relationship-processor",
        }
        request = AWSRequest(method="POST", url=self._url, data=body, headers=headers)
        SigV4Auth(self._frozen(), "sqs", self._region).add_auth(request)
        signed: Any = dict(request.headers.items())
        return AWSPreparedRequest("POST", self._url, signed, body, stream_output=False)

    def _frozen(self) -> ReadOnlyCredentials:
        """The credentials as they are now, refreshed when it is time. Raises `BotoCoreError`."""
        if self._credentials is None:
            raise NoCredentialsError
        return self._credentials.get_frozen_credentials()

    def _send(self, request: AWSPreparedRequest) -> tuple[int, dict[str, Any]]:
        """Status and body, with the answer's date where boto3 puts it. Raises `BotoCoreError`."""
        response = self._http.send(request)
        content = response.content
        try:
            reply = json.loads(content) if content else {}
        except ValueError:
            reply = {}
        headers = {"date": response.headers.get("date", "")}
        reply["ResponseMetadata"] = {"HTTPStatusCode": response.status_code, "HTTPHeaders": headers}
        return response.status_code, reply


def make_http_session(
    url: str, session: Session, *, connect_seconds: float, read_seconds: float, connections: int
) -> URLLib3Session:
    """As botocore makes its own for `url`: pooled, through the environment's proxies, with the configured CA bundle."""
    make: Any = URLLib3Session  # whose published types know less than it takes
    http: URLLib3Session = make(
        verify=session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE", True),
        proxies=get_environ_proxies(url),
        timeout=(connect_seconds, read_seconds),
        max_pool_connections=connections,
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)],
    )
    return http


def _to_json(parameters: Mapping[str, Any]) -> bytes:
    return json.dumps(parameters, separators=(",", ":")).encode()


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

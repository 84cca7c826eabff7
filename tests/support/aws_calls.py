"""``python -m tests.support.aws_calls FILE``: the real worker, which notes each AWS call that it makes in FILE.

A line a call: the operation and the queue's name. Invariant: every client that botocore makes is listened to, and every
call that goes the lean road.
"""

import json
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import botocore.session

from app.sqs.signed_post import SignedPost


def note_calls(path: str) -> None:
    """Listen to botocore's own `before-call` event."""
    notes = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    make: Callable[..., Any] = botocore.session.Session.create_client

    def before_call(model: Any, params: dict[str, Any], **_: Any) -> None:
        queue = json.loads(params["body"]).get("QueueUrl", "-").rsplit("/", 1)[-1]
        os.write(notes, f"{model.service_model.service_id} {model.name} {queue}\n".encode())

    def listened(self: Any, *arguments: Any, **keywords: Any) -> Any:
        client = make(self, *arguments, **keywords)
        client.meta.events.register("before-call", before_call)
        return client

    vars_of_class: Any = botocore.session.Session
    vars_of_class.create_client = listened

    send: Callable[..., Any] = SignedPost.send

    def noted(self: SignedPost, target: str, body: bytes, credentials: Any) -> Any:
        operation, queue = target.rpartition(".")[2], json.loads(body)["QueueUrl"].rsplit("/", 1)[-1]
        os.write(notes, f"SQS {operation} {queue}\n".encode())
        return send(self, target, body, credentials)

    signed_post: Any = SignedPost
    signed_post.send = noted


if __name__ == "__main__":
    note_calls(sys.argv[1])
    from app import main

    code = main.main()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)

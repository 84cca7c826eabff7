"""The benchmark's second contestant: the least I/O that a segment can cost, with the walk left out.

Invariant: what it does for ten segments is what nobody can leave out: receive, claim, store the result's bytes
and count them, delete. One call or one autocommitted statement each, over one connection a service, one after the
other. It asks Neo4j and the cache nothing and keeps none of the promises of docs/formats.md. Frozen once
measured.

`python -m bench.floor --results FILE` takes the worker's own environment (env.example) and ends on
SIGTERM; each line of FILE is a result's JSON text, and they are stored in turn.
"""

import argparse
import json
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import boto3
import psycopg2

from bench.contestant import Environment, main

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import DeleteMessageBatchRequestEntryTypeDef, MessageTypeDef

MESSAGES_PER_CALL = 10

CLAIM = """
UPDATE segment_task AS task
SET status = 'IN_PROGRESS', attempts = attempts + 1, updated_at = clock_timestamp()
FROM unnest(%s::uuid[], %s::text[]) AS wanted (job_id, segment_id)
WHERE task.job_id = wanted.job_id AND task.segment_id = wanted.segment_id AND task.status = 'QUEUED'
RETURNING task.task_id::text
"""
FINISH = """
WITH stored AS (
    UPDATE segment_task AS task
    SET status = 'COMPLETED', result_json = given.result::jsonb, updated_at = clock_timestamp()
    FROM unnest(%s::uuid[], %s::text[]) AS given (task_id, result)
    WHERE task.task_id = given.task_id
    RETURNING task.job_id
), counts AS (SELECT job_id, count(*) AS segments FROM stored GROUP BY job_id)
UPDATE root_job AS job
SET completed_segments = completed_segments + segments, updated_at = clock_timestamp(),
    status = CASE WHEN completed_segments + segments = total_segments THEN 'COMPLETED' ELSE 'IN_PROGRESS' END
FROM counts WHERE job.job_id = counts.job_id
RETURNING job.job_id::text, job.manifestation_id, job.status
"""


class IoFloor:
    """The worker without its work. Owns its connections; leaving the context ends them."""

    def __init__(self, environment: Environment, results: list[str]) -> None:
        """`results`: the JSON texts to store, in turn."""
        self._environment = environment
        self._results = cycle(results)
        self._sqs = boto3.client("sqs", region_name=environment.aws_region)
        self._postgres = psycopg2.connect(environment.postgres_url)
        self._postgres.autocommit = True
        self._cursor = self._postgres.cursor()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._postgres.close()
        self._sqs.close()

    def poll(self) -> int:
        """Receive up to ten messages and see them through; how many there were."""
        received = self._sqs.receive_message(
            QueueUrl=self._environment.queue_url, MaxNumberOfMessages=MESSAGES_PER_CALL, WaitTimeSeconds=1
        )
        messages = received.get("Messages", [])
        if messages:
            self._finish(self._claim([json.loads(message["Body"]) for message in messages]))
            self._delete(messages)
        return len(messages)

    def _claim(self, bodies: list[dict[str, Any]]) -> list[str]:
        wanted = [body["job_id"] for body in bodies], [body["segment_id"] for body in bodies]
        self._cursor.execute(CLAIM, wanted)
        return [task_id for (task_id,) in self._cursor]

    def _finish(self, tasks: list[str]) -> None:
        results = [result for _, result in zip(tasks, self._results, strict=False)]
        self._cursor.execute(FINISH, (tasks, results))
        for job_id, manifestation_id, status in self._cursor:
            if status == "COMPLETED":
                completion = json.dumps({"job_id": job_id, "manifestation_id": manifestation_id})
                self._sqs.send_message(QueueUrl=self._environment.completed_queue_url, MessageBody=completion)

    def _delete(self, messages: "list[MessageTypeDef]") -> None:
        entries: list[DeleteMessageBatchRequestEntryTypeDef] = [
            {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]} for number, message in enumerate(messages)
        ]
        answer = self._sqs.delete_message_batch(QueueUrl=self._environment.queue_url, Entries=entries)
        if answer.get("Failed"):
            raise RuntimeError(f"{len(answer['Failed'])} messages were not deleted")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.floor", description="The I/O floor of the benchmark.")
    parser.add_argument("--results", type=Path, required=True, help="a result's JSON text a line")
    lines = parser.parse_args().results.read_text(encoding="utf-8").splitlines()
    main(lambda environment: IoFloor(environment, lines))

"""The benchmark's first contestant: a worker that does each thing when its turn comes, one query a step.

Invariant: faithful and straightforward. It walks as the definition says (bench/reference.py) with one Neo4j query
a step, keeps a manifestation's pairs once it has read them, receives and deletes one message a call, and spends
four PostgreSQL transactions a segment: claim, read the job, store the result, count. It keeps one connection a
service. Frozen once measured: to make it faster or slower would move the yardstick.

`python -m bench.naive` takes the worker's own environment (env.example) and ends on SIGTERM.
"""

import json
from typing import TYPE_CHECKING, Any, LiteralString, Self

import boto3
import neo4j
import psycopg2
import redis

from bench.contestant import Environment, main
from bench.reference import Pair, walk
from devstack.families import Segment

if TYPE_CHECKING:
    from psycopg2.extensions import connection as PostgresConnection
    from psycopg2.extensions import cursor as Cursor

# Each WITH keeps the planner from starting at the far end: from an AnnotationType it would visit every text.
PAIRS: LiteralString = """
MATCH (m:Manifestation {id: $manifestation})
OPTIONAL MATCH (m)<-[:ANNOTATION_OF]-(a1:Annotation)
WHERE EXISTS { (a1)-[:HAS_TYPE]->(:AnnotationType {name: 'alignment'}) }
WITH m, a1
OPTIONAL MATCH (a1)-[:ALIGNED_TO]-(a2:Annotation)-[:ANNOTATION_OF]->(target:Manifestation)
WHERE EXISTS { (a2)-[:HAS_TYPE]->(:AnnotationType {name: 'alignment'}) }
RETURN DISTINCT a1.id AS a1, a2.id AS a2, target.id AS target
"""
HITS: LiteralString = """
MATCH (a1:Annotation {id: $a1})
WITH a1
MATCH (a1)<-[:SEGMENTATION_OF]-(one:Segment)
WHERE one.span_start < $end AND one.span_end > $start
WITH one
MATCH (one)-[:ALIGNED_TO]-(other:Segment)
WITH DISTINCT other
MATCH (other)-[:SEGMENTATION_OF]->(a2:Annotation)
WHERE a2.id = $a2 AND other.span_start IS NOT NULL AND other.span_end IS NOT NULL
RETURN other.span_start AS start, other.span_end AS end
"""
SEGMENTATION: LiteralString = """
MATCH (m:Manifestation {id: $manifestation})<-[:ANNOTATION_OF]-(a:Annotation)
WHERE EXISTS { (a)-[:HAS_TYPE]->(:AnnotationType {name: 'segmentation'}) }
WITH DISTINCT a
MATCH (a)<-[:SEGMENTATION_OF]-(s:Segment)
WHERE s.span_start < $end AND s.span_end > $start
RETURN s.id AS id, a.id AS annotation, s.span_start AS start, s.span_end AS end
"""

CLAIM = """
UPDATE segment_task SET status = 'IN_PROGRESS', attempts = attempts + 1, updated_at = clock_timestamp()
WHERE job_id = %(job_id)s AND segment_id = %(segment_id)s AND status IN ('QUEUED', 'RETRYING')
"""
READ_JOB = "SELECT status FROM root_job WHERE job_id = %(job_id)s"
START_JOB = """
UPDATE root_job SET status = 'IN_PROGRESS', updated_at = clock_timestamp()
WHERE job_id = %(job_id)s AND status = 'QUEUED'
"""
STORE = """
UPDATE segment_task SET status = 'COMPLETED', result_json = %(result)s, updated_at = clock_timestamp()
WHERE job_id = %(job_id)s AND segment_id = %(segment_id)s
"""
COUNT = """
UPDATE root_job SET completed_segments = completed_segments + 1, updated_at = clock_timestamp()
WHERE job_id = %(job_id)s
"""
READ_COUNT = "SELECT completed_segments = total_segments FROM root_job WHERE job_id = %(job_id)s"
COMPLETE_JOB = "UPDATE root_job SET status = 'COMPLETED' WHERE job_id = %(job_id)s"


class NaiveGraph:
    """The walk's questions, each one query in a transaction of its own; pairs are asked for once."""

    def __init__(self, session: neo4j.Session, cache: "redis.Redis | None") -> None:
        self._session = session
        self._cache = cache
        self._pairs: dict[str, list[Pair]] = {}

    def pairs_of(self, manifestation: str) -> list[Pair]:
        """From memory, the cache or Neo4j, in this order; KeyError when there is no such manifestation."""
        if manifestation not in self._pairs:
            self._pairs[manifestation] = self._load_pairs(manifestation)
        return self._pairs[manifestation]

    def hits(self, a1: str, a2: str, start: int, end: int) -> list[tuple[int, int]]:
        """One query."""
        rows = self._session.run(HITS, a1=a1, a2=a2, start=start, end=end)
        return [(row["start"], row["end"]) for row in rows]

    def segmentation(self, manifestation: str, start: int, end: int) -> list[Segment]:
        """One query."""
        rows = self._session.run(SEGMENTATION, manifestation=manifestation, start=start, end=end)
        return [Segment(row["id"], row["annotation"], row["start"], row["end"]) for row in rows]

    def _load_pairs(self, manifestation: str) -> list[Pair]:
        key = f"naive:pairs:{manifestation}"
        cached: Any = self._cache.get(key) if self._cache else None
        if cached is not None:
            return [Pair(*row) for row in json.loads(cached)]
        rows = self._session.run(PAIRS, manifestation=manifestation).values()
        if not rows:
            raise KeyError(manifestation)
        pairs = [Pair(*row) for row in rows if row[1] is not None]
        if self._cache:
            self._cache.set(key, json.dumps(pairs), ex=3600)
        return pairs


class NaiveReference:
    """The worker. Owns its connections; `close` ends them."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._sqs = boto3.client("sqs", region_name=environment.aws_region)
        self._postgres: PostgresConnection = psycopg2.connect(environment.postgres_url)
        self._driver = neo4j.GraphDatabase.driver(environment.neo4j_uri, auth=environment.neo4j_auth)
        cache_url = environment.dragonfly_url
        self._cache = redis.Redis.from_url(cache_url) if cache_url else None
        self._session = self._driver.session()
        self._graph = NaiveGraph(self._session, self._cache)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every connection."""
        self._session.close()
        self._driver.close()
        self._postgres.close()
        self._sqs.close()
        if self._cache:
            self._cache.close()

    def poll(self) -> int:
        """Receive at most one message and see it through; how many there were."""
        queue_url = self._environment.queue_url
        received = self._sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=1, WaitTimeSeconds=1)
        messages = received.get("Messages", [])
        for message in messages:
            self._process(json.loads(message["Body"]))
            self._sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])
        return len(messages)

    def _process(self, body: dict[str, Any]) -> None:
        if not self._claim(body):
            return
        self._start_job(body)
        related = walk(self._graph, body["manifestation_id"], int(body["start"]), int(body["end"]))
        self._store(body, related)
        if self._count(body):
            completion = json.dumps({"job_id": body["job_id"], "manifestation_id": body["manifestation_id"]})
            self._sqs.send_message(QueueUrl=self._environment.completed_queue_url, MessageBody=completion)

    def _claim(self, body: dict[str, Any]) -> bool:
        with self._postgres, self._cursor() as cursor:
            cursor.execute(CLAIM, body)
            return cursor.rowcount == 1

    def _start_job(self, body: dict[str, Any]) -> None:
        with self._postgres, self._cursor() as cursor:
            cursor.execute(READ_JOB, body)
            if cursor.fetchone() == ("QUEUED",):
                cursor.execute(START_JOB, body)

    def _store(self, body: dict[str, Any], related: list[dict[str, Any]]) -> None:
        with self._postgres, self._cursor() as cursor:
            cursor.execute(STORE, {**body, "result": json.dumps(related, ensure_ascii=False)})

    def _count(self, body: dict[str, Any]) -> bool:
        with self._postgres, self._cursor() as cursor:
            cursor.execute(COUNT, body)
            cursor.execute(READ_COUNT, body)
            complete = cursor.fetchone() == (True,)
            if complete:
                cursor.execute(COMPLETE_JOB, body)
            return complete

    def _cursor(self) -> "Cursor":
        return self._postgres.cursor()


if __name__ == "__main__":
    main(NaiveReference)

"""The worker behind a real PgBouncer in transaction mode, with strangers who share its server connections."""

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import psycopg2
import pytest

from app.db.postgres import run
from app.db.prepared import Prepared
from app.errors import StatementTimeoutError
from app.sqs.queue import Outgoing
from devstack.families import Family
from tests.support.endstate import completions, is_over, job_row, load_job, problems, wrong_answers
from tests.support.engine import Engine
from tests.support.pgbouncer import PROGRAM, pooled
from tests.support.services import Queues, migrate
from tests.support.worker import Worker, wait_until

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed: apt-get install pgbouncer")

POOL_SIZE = 3
"""Fewer than the worker's lanes, so that hardly any transaction gets the server connection of the one before."""
SEGMENTS = 500
SETTINGS = (
    *("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "plan_cache_mode"),
    *("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "default_transaction_isolation"),
)
SHOW = "SELECT " + ", ".join(f"current_setting('{name}')" for name in SETTINGS)
LOCK = Prepared("SELECT 1;\n\nSELECT 1 FROM root_job WHERE job_id = %(job)s::uuid FOR UPDATE")


@pytest.fixture
def pooled_url(postgres_url: str) -> Iterator[str]:
    """The test's own database through a pooler."""
    with pooled(postgres_url, POOL_SIZE) as url:
        yield url


@pytest.fixture
def pooled_engine(pooled_url: str) -> Iterator[Engine]:
    engine = Engine(pooled_url, pool_size=8)
    yield engine
    engine.dispose()


@contextmanager
def stranger(url: str) -> Iterator[set[tuple[str, ...]]]:
    """Looks at its session's settings through the pooler, over and over; all that it has ever seen."""
    seen: set[tuple[str, ...]] = set()
    stop = threading.Event()

    def look() -> None:
        with closing(psycopg2.connect(url)) as session:
            session.autocommit = True
            while not stop.is_set():
                with session.cursor() as cursor:
                    cursor.execute(SHOW)
                    seen.update(cursor.fetchall())

    with ThreadPoolExecutor() as threads:
        looking = threads.submit(look)
        try:
            yield seen
        finally:
            stop.set()
        looking.result()


def test_a_whole_job_and_strangers_see_nothing_of_it(
    environment: dict[str, str],
    pooled_url: str,
    engine: Engine,
    queues: Queues,
    load_graph: Callable[[Family], None],
) -> None:
    family = Family.from_graph(
        {
            "manifestations": ["M"],
            "annotations": [{"id": "M.s", "manifestation": "M", "type": "segmentation"}],
            "segments": [{"id": f"s{n}", "annotation": "M.s", "start": n, "end": n + 1} for n in range(SEGMENTS)],
            "aligned_annotations": [],
            "aligned_segments": [],
        }
    )
    load_graph(family)
    job = str(uuid.uuid4())
    queues.segments.send([Outgoing(body) for body in load_job(engine, family, "M", job_id=job)])
    with engine.connect() as connection:
        untouched = tuple(connection.exec_driver_sql(SHOW).one())
    with stranger(pooled_url) as seen, Worker({**environment, "POSTGRES_URL": pooled_url}) as worker:
        wait_until(lambda: is_over(engine, job), "the job to end")
        wait_until(lambda: queues.segments.facts().messages == 0, "every message to be deleted")
        assert worker.stop() == 0
        log = worker.log()
    loud = [line for line in log.splitlines() if " - WARNING - " in line or " - ERROR - " in line]
    assert [line for line in loud if "The graph: " not in line] == []
    assert "prepared statements" not in log, "it was known from the start"
    assert seen == {untouched}
    assert problems(engine) == []
    assert wrong_answers(engine, job, {f"s{n}": [] for n in range(SEGMENTS)}) == []
    assert job_row(engine, job)["completed_segments"] == SEGMENTS
    assert run(engine, "SELECT count(*) FROM segment_task WHERE attempts <> 1") == [(0,)]
    assert completions(queues.completed) == {job: 1}


def test_a_wait_for_a_lock_ends_on_whichever_server_connection(pooled_engine: Engine, engine: Engine) -> None:
    """Every one of the pool's connections is met, since as many as it has wait at the same time."""
    job = run(engine, "INSERT INTO root_job (manifestation_id, total_segments) VALUES ('M', 1) RETURNING job_id")[0][0]
    with engine.connect() as holder:
        holder.exec_driver_sql("BEGIN; SELECT 1 FROM root_job FOR UPDATE")
        with ThreadPoolExecutor() as threads:
            waits = [
                threads.submit(LOCK.run, pooled_engine, {"job": job}, lock_timeout_ms=200) for _ in range(4 * POOL_SIZE)
            ]
            for wait in waits:
                with pytest.raises(StatementTimeoutError):
                    wait.result(timeout=60)
        holder.exec_driver_sql("ROLLBACK")
    assert LOCK.run(pooled_engine, {"job": job}) == [(1,)]


def test_statements_are_sent_as_text_and_nothing_is_prepared(pooled_engine: Engine, engine: Engine) -> None:
    job = run(engine, "INSERT INTO root_job (manifestation_id, total_segments) VALUES ('M', 1) RETURNING job_id")[0][0]
    with ThreadPoolExecutor() as threads:
        found = threads.map(lambda _: LOCK.run(pooled_engine, {"job": job}), range(100))
        assert list(found) == [[(1,)]] * 100
    assert run(pooled_engine, "SELECT count(*) FROM pg_prepared_statements") == [(0,)]


def test_migrations_go_through_it(bare_postgres_url: str) -> None:
    with pooled(bare_postgres_url, POOL_SIZE) as url:
        migrate(url)
        assert migrate(url, "check").returncode == 0

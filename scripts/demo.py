"""``make demo``: everything once, on real local services, with what came out of it.

Invariant: only the local stack is touched, whatever .env says, and however this ends no worker is left running.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final, NoReturn

import neo4j
from rich.console import Console
from rich.text import Text

from app.core.jobs import Job
from app.db.jobs import PostgresJobs
from app.db.postgres import Database
from app.errors import ProcessorError
from app.jobs.tables import relations_table
from app.sqs.queue import Queue, make_client
from devstack.errors import DevstackError
from devstack.families import Family, load_example
from devstack.stack import Stack
from scripts.serve_page import USUAL_PORT, ServeError, serve

DESCRIPTION: Final = "Run one job through the worker on the local services, and show what came out."
ROOT: Final = Path(__file__).resolve().parent.parent
TEXT: Final = "root-bo"
STEPS: Final = 7
SHOWN_SEGMENTS: Final = 3
JOB_LIMIT_SECONDS: Final = 120.0
STOP_LIMIT_SECONDS: Final = 40.0
MESSAGE_LIMIT_SECONDS: Final = 30.0
LOG_TAIL_LINES: Final = 15

console = Console(highlight=False)


class DemoError(Exception):
    """What went wrong, for a person."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.demo", description=DESCRIPTION)
    parser.add_argument("--stack", default="dev", metavar="NAME", help="which local stack (default: dev)")
    parser.add_argument("--serve", action="store_true", help="then serve the page until Ctrl-C")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _stop)
    began = time.monotonic()
    stack = Stack(options.stack, say=_say)
    try:
        _demo(stack)
    except (DemoError, DevstackError, ProcessorError) as error:
        return _fail(str(error))
    except (neo4j.exceptions.Neo4jError, neo4j.exceptions.DriverError) as error:
        return _fail(f"Neo4j: {error}")
    except KeyboardInterrupt:
        return _fail("Interrupted.", 130)
    console.print(f"\n[bold green]Everything worked[/], in {time.monotonic() - began:.1f} s.")
    console.print("The local services go on running. [bold]make status[/] shows them, [bold]make down[/] stops them.")
    console.print('To look around: [bold]eval "$(make -s env)"[/], then [bold].venv/bin/python -m app.jobs list[/]')
    if options.serve:
        return _serve(stack)
    console.print(f"The page: [bold]make demo ARGS=--serve[/] serves it, at http://127.0.0.1:{USUAL_PORT}/")
    return 0


def _serve(stack: Stack) -> int:
    """Serve the page until Ctrl-C; the exit code."""

    def tell(address: str) -> None:
        console.print(f"The page: {address}/", soft_wrap=True)
        console.print(f"The map:  {address}/ui/map?manifestation={TEXT}&start=0&end=40", soft_wrap=True)
        console.print("Ctrl-C ends it.")

    try:
        serve({**os.environ, **stack.env()}, stack.folder / "demo-page.log", tell)
    except ServeError as error:
        return _fail(str(error))
    return 0


def _stop(*_: object) -> NoReturn:
    raise KeyboardInterrupt


@contextmanager
def _interruptions_later() -> Iterator[None]:
    """A Ctrl-C in here counts at the end: a process that is just being started would be nobody's otherwise."""
    asked: list[object] = []
    before = {number: signal.signal(number, lambda *_: asked.append(_)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise KeyboardInterrupt


def _fail(message: str, code: int = 1) -> int:
    console.print(Text(f"\nThe demo stopped: {message}", style="red"))
    console.print("What runs of the local services goes on running; [bold]make down[/] stops it.")
    return code


def _demo(stack: Stack) -> None:
    with _step(1, "Start PostgreSQL, Neo4j, an SQS server and a cache"):
        stack.up()
        environment = {**os.environ, **stack.env()}
    with _step(2, "Migrate the database: alembic upgrade head"):
        _run("alembic", "upgrade", "head", environment=environment)
    with _step(3, "Load a family of aligned texts into Neo4j"):
        family = _load(environment)
    database = Database(environment["POSTGRES_URL"])
    jobs = PostgresJobs(database)
    try:
        with _step(4, f"Make a job: python -m app.jobs create {TEXT}"):
            job_id = _run("app.jobs", "create", TEXT, environment=environment).strip()
            _say(f"job {job_id}: {len(family.job_segments(TEXT))} segments, a message each")
        with _step(5, "Run the worker until the job has ended: python -m app.main"):
            job = _work(jobs, job_id, environment, stack.folder / "demo-worker.log")
            _say(
                f"{job.status}: {job.completed_segments} of {job.total_segments} segments completed,"
                f" {job.failed_segments} failed"
            )
        with _step(6, "Receive the completion message from the second queue"):
            _say(_receive(environment, job_id))
        with _step(7, f"Look at what is related to the first segments of {TEXT}"):
            console.print(relations_table(islice(jobs.read_records(job_id), SHOWN_SEGMENTS)))
    finally:
        database.dispose()


@contextmanager
def _step(number: int, what: str) -> Iterator[None]:
    console.print(Text.assemble((f"{number}/{STEPS} ", "bold cyan"), (what, "bold")))
    began = time.monotonic()
    yield
    console.print(Text(f"    done in {time.monotonic() - began:.1f} s", style="dim"))


def _say(text: str) -> None:
    for line in text.splitlines():
        console.print(Text(f"    {line.rstrip()}"), soft_wrap=True)


def _run(module: str, *arguments: str, environment: Mapping[str, str]) -> str:
    """What ``python -m module`` prints; raises with what it said when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        command = " ".join(("python -m", module, *arguments))
        raise DemoError(f"`{command}` ended with code {done.returncode}:\n{done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _load(environment: Mapping[str, str]) -> Family:
    family = load_example(environment)
    _say(
        f"{len(family.manifestations)} texts, {len(family.segments)} segments,"
        f" {len(family.aligned_annotations)} alignments between texts"
    )
    return family


def _work(jobs: PostgresJobs, job_id: str, environment: Mapping[str, str], log: Path) -> Job:
    """The job once a worker of our own has ended it; the worker is gone then."""
    worker = None
    try:
        with log.open("w", encoding="utf-8") as out, _interruptions_later():
            worker = subprocess.Popen(
                [sys.executable, "-m", "app.main"],
                cwd=ROOT,
                env=dict(environment),
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the demo, which then ends the worker as the platform would
            )
        job = _await_end(jobs, job_id, worker, log)
    finally:
        if worker is not None:
            _end(worker)
    if job.status != "COMPLETED":
        raise DemoError(f"the job ended as {job.status}; see `python -m app.jobs show {job_id}`.{_tail(log)}")
    if worker.returncode:
        raise DemoError(f"the worker ended with code {worker.returncode} after SIGTERM, not 0.{_tail(log)}")
    _say(f"its log: {log.relative_to(ROOT)}")
    return job


def _await_end(jobs: PostgresJobs, job_id: str, worker: subprocess.Popen[bytes], log: Path) -> Job:
    deadline = time.monotonic() + JOB_LIMIT_SECONDS
    while True:
        job = jobs.get(job_id)
        if job is not None and job.has_ended:
            return job
        if worker.poll() is not None:
            raise DemoError(f"the worker ended with code {worker.returncode} before the job did.{_tail(log)}")
        if time.monotonic() > deadline:
            raise DemoError(f"the job has not ended after {JOB_LIMIT_SECONDS:.0f} s.{_tail(log)}")
        time.sleep(0.1)


def _end(worker: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, and SIGKILL when that does not help."""
    worker.terminate()
    try:
        worker.wait(STOP_LIMIT_SECONDS)
    finally:
        worker.kill()
        worker.wait()


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
    return "\nThe last lines of the worker's log:\n" + "\n".join(f"    {line}" for line in lines)


def _receive(environment: Mapping[str, str], job_id: str) -> str:
    """The body of the job's completion message, taken from the queue; other jobs' messages stay there."""
    client = make_client(
        environment["AWS_REGION"],
        wait_seconds=2,
        endpoint_url=environment["AWS_ENDPOINT_URL_SQS"],
        access_key_id=environment["AWS_ACCESS_KEY_ID"],
        secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
    queue = Queue(client, environment["SQS_COMPLETED_QUEUE_URL"])
    deadline = time.monotonic() + MESSAGE_LIMIT_SECONDS
    while time.monotonic() < deadline:
        for message in queue.receive(10, 2, 5):
            if json.loads(message["Body"]).get("job_id") == job_id:
                queue.delete([message["ReceiptHandle"]])
                return str(message["Body"])
    raise DemoError(f"no completion message of job {job_id} came to {queue.name} within {MESSAGE_LIMIT_SECONDS:.0f} s.")


if __name__ == "__main__":
    sys.exit(main())

"""A contestant that is watched from inside: how long each batch took, and how long it waited for Neo4j.

Invariant: what is watched runs unchanged; the watching is two readings of a clock a batch and a query.

A batch's time runs from the moment that the receive has answered until the batch's last call has: for the worker
`Loop._work`, for the others the rest of `poll`. `python -m bench.timed worker|naive|floor OUT` takes the
environment of what it runs, ends on SIGTERM, and leaves JSON in OUT.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Self
from unittest.mock import patch

from bench import contestant
from bench.contestant import Environment
from bench.floor import IoFloor
from bench.naive import NaiveGraph, NaiveReference


@dataclass(slots=True)
class Record:
    """Seconds, in the order in which things ended."""

    batches: list[float] = field(default_factory=list)
    neo4j: list[float] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Leave it for `read_record`."""
        path.write_text(json.dumps(asdict(self)))


def read_record(path: Path) -> Record:
    """What an observed process has left."""
    return Record(**json.loads(path.read_text()))


def timed[**P, R](function: Callable[P, R], into: list[float]) -> Callable[P, R]:
    """`function`, noting how long each call takes; `append` is atomic, so threads may share it."""

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        began = perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            into.append(perf_counter() - began)

    return call


def run_worker(path: Path) -> int:
    """`python -m app.main`, watched; its exit code."""
    from app.graph.session import Reader
    from app.main import main
    from app.worker.loop import Loop

    record = Record()
    with (
        patch.object(Loop, "_work", timed(Loop._work, record.batches)),
        patch.object(Reader, "read", timed(Reader.read, record.neo4j)),
    ):
        code = main()
        record.write(path)
        return code


class Watched:
    """A contestant of the benchmark's own, watched."""

    def __init__(self, inner: NaiveReference | IoFloor, path: Path) -> None:
        self._inner = inner
        self._path = path
        self._record = Record()
        self._received_at = 0.0
        self._patches = ExitStack()

    def __enter__(self) -> Self:
        self._inner.__enter__()
        client: Any = self._inner._sqs
        receive = client.receive_message

        def note(**arguments: Any) -> Any:
            answer = receive(**arguments)
            self._received_at = perf_counter()
            return answer

        self._patches.enter_context(patch.object(client, "receive_message", note))
        for question in ("hits", "segmentation", "_load_pairs"):
            watched = timed(getattr(NaiveGraph, question), self._record.neo4j)
            self._patches.enter_context(patch.object(NaiveGraph, question, watched))
        return self

    def __exit__(self, *error: object) -> None:
        self._patches.close()
        self._inner.__exit__(*error)
        self._record.write(self._path)

    def poll(self) -> int:
        """See `bench.contestant.Contestant`."""
        segments = self._inner.poll()
        if segments:
            self._record.batches.append(perf_counter() - self._received_at)
        return segments


def run_contestant(kind: str, path: Path, results: Path | None) -> None:
    """`python -m bench.naive` or `bench.floor`, watched."""

    def make(environment: Environment) -> Watched:
        if kind == "naive":
            return Watched(NaiveReference(environment), path)
        assert results is not None, "a floor needs --results"
        return Watched(IoFloor(environment, results.read_text(encoding="utf-8").splitlines()), path)

    contestant.main(make)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.timed", description="A contestant, watched from inside.")
    parser.add_argument("kind", choices=("worker", "naive", "floor"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--results", type=Path)
    given = parser.parse_args()
    if given.kind == "worker":
        exit_code = run_worker(given.out)
        logging.shutdown()
        sys.stdout.flush()
        os._exit(exit_code)  # as app.main does, and for the same reason
    run_contestant(given.kind, given.out, given.results)

"""Says in words what the graph lacks: python -m app.neo4j_database_validator [--full]

Invariant: it only looks. What it finds is for the graph's owner to repair, and never keeps a worker from starting.

Exit codes: 0 nothing found; 1 findings, one a line; 2 the graph cannot be reached.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final, LiteralString

from app import neo4j_quries as queries
from app.errors import OutageError, ProcessorError, RefusedError, TransientError
from app.neo4j_database import Neo4JDatabase

SAMPLE_NODES: Final = 1_000
ALL_NODES: Final = 2**62
SAMPLE_SECONDS: Final = 10.0
FULL_SECONDS: Final = 600.0  # for each query
MAX_EXAMPLE_CHARACTERS: Final = 100

UNIQUE: Final = (("Manifestation", "id"), ("Annotation", "id"), ("Segment", "id"), ("AnnotationType", "name"))
ANNOTATION_TYPES: Final = ("alignment", "segmentation", "pagination")
FAULTS: Final[tuple[tuple[str, LiteralString], ...]] = (
    ("manifestations", queries.FAULTY_MANIFESTATIONS),
    ("annotations", queries.FAULTY_ANNOTATIONS),
    ("segments", queries.FAULTY_SEGMENTS),
)


def validate(database: Neo4JDatabase, full: bool) -> list[str]:
    """What is missing or wrong, a sentence each: in the schema and in a bounded sample, or in all (`full`).

    Raises `OutageError`. What cannot be looked at for another reason is a finding.
    """
    findings: list[str] = []
    for check in (_find_absent_names, _find_missing_constraints, _find_missing_types, _find_faults):
        try:
            findings += check(database, full)
        except RefusedError as error:  # perhaps of this one query alone
            findings.append(f"Not everything could be looked at: {error}")
        except OutageError:
            raise
        except TransientError as error:
            findings.append(f"Not everything could be looked at: {error}")
    return findings


def _find_absent_names(database: Neo4JDatabase, full: bool) -> Iterable[str]:
    for kind, name, count in _read(database, queries.COUNTS, full):
        if not count:
            yield f"Nothing in the graph has the {kind} {name}."


def missing_constraints(database: Neo4JDatabase, full: bool = False) -> list[tuple[str, str]]:
    """(label, property) of what should be unique and has no constraint that says so. Raises `OutageError`."""
    unique = {(label, *properties) for label, properties in _read(database, queries.UNIQUE_CONSTRAINTS, full)}
    return [each for each in UNIQUE if each not in unique]


def tell_missing_constraint(label: str, name: str) -> str:
    """What is wrong without it, in a sentence."""
    return (
        f"There is no uniqueness constraint on {label}.{name}: it may be ambiguous, and unless it is indexed"
        f" otherwise every lookup reads all nodes with the label {label}."
    )


def _find_missing_constraints(database: Neo4JDatabase, full: bool) -> Iterable[str]:
    return [tell_missing_constraint(*each) for each in missing_constraints(database, full)]


def _find_missing_types(database: Neo4JDatabase, full: bool) -> Iterable[str]:
    ((names,),) = _read(database, queries.ANNOTATION_TYPES, full)
    for name in ANNOTATION_TYPES:
        if name not in names:
            yield f"There is no AnnotationType named {name!r}."


def _find_faults(database: Neo4JDatabase, full: bool) -> Iterable[str]:
    where = "" if full else f" among the first {SAMPLE_NODES:,} looked at"
    for what, query in FAULTS:
        for fault, count, example in _read(database, query, full, limit=ALL_NODES if full else SAMPLE_NODES):
            if count:
                shown = "" if example is None else f", for example {example[:MAX_EXAMPLE_CHARACTERS]!r}"
                yield f"{count:,} {what} {fault}{where}{shown}."


def _read(database: Neo4JDatabase, query: LiteralString, full: bool, **parameters: Any) -> list[list[Any]]:
    return database.read_rows(query, seconds=FULL_SECONDS if full else SAMPLE_SECONDS, **parameters)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m app.neo4j_database_validator", description="Say what the graph lacks."
    )
    parser.add_argument("--full", action="store_true", help="look at every node, not at a sample")
    full = parser.parse_args(arguments).full
    try:
        database = Neo4JDatabase()
        try:
            findings = validate(database, full)
        finally:
            database.close()
    except ProcessorError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    looked_at = "every node" if full else f"a sample of {SAMPLE_NODES:,} nodes a label; --full looks at all"
    for line in findings or [f"Nothing is wrong with the graph ({looked_at})."]:
        sys.stdout.write(f"{line}\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())

"""What the figures were measured on: processors, memory, load, versions, the state of the code."""

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from bench.ground import ROOT, Ground

PACKAGES = ("boto3", "neo4j", "neo4j-rust-ext", "psycopg2-binary", "pydantic", "redis", "SQLAlchemy")
BUSY_SHARE = 0.25
"""Of its processors; with more work than this waiting before the start, a machine is not quiet."""


def describe_machine() -> dict[str, Any]:
    """Before anything is started: the load is others'."""
    return {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "processors": psutil.cpu_count(),
        "model": _processor_model(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_before": [round(value, 2) for value in os.getloadavg()],
        "commit": _commit(),
    }


def describe_versions(ground: Ground) -> dict[str, str]:
    """Of the services and of what the worker is built with."""
    with ground.admin() as admin, admin.cursor() as cursor:
        cursor.execute("SHOW server_version")
        postgres = cursor.fetchall()[0][0]
    components = ground.driver.execute_query("CALL dbms.components() YIELD versions RETURN versions[0] AS version")
    cache = ground.cache_info()
    return {
        "Python": platform.python_version(),
        "PostgreSQL": str(postgres).split(" ")[0],
        "Neo4j": str(components.records[0]["version"]),
        "cache": f"{cache.get('server_name', 'redis')} {cache.get('valkey_version') or cache['redis_version']}",
        **{package: version(package) for package in PACKAGES},
    }


def busy_warning(machine: Mapping[str, Any]) -> str | None:
    """What to say before the start when the machine has other things to do."""
    load, processors = machine["load_before"][0], machine["processors"]
    if load <= BUSY_SHARE * processors:
        return None
    return (
        f"WARNING: the load average is {load} on {processors} processors before the start. The machine is busy with"
        " something else, and no figure below means much; run this again when it is quiet."
    )


def _processor_model() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    """The commit, with a mark when the worker's code differs from it."""
    try:
        commit = _git("rev-parse", "--short=10", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "--", "app", "bench", "alembic") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

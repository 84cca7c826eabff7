"""What a job costs in memory, to the HTTP server by each route and to `show` in each format, does not grow with it."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest

from app.db.postgres import run
from app.jobs.arguments import FORMATS
from tests.support.engine import Engine
from tests.support.jobs import make_job
from tests.support.services import ROOT
from tests.support.worker import Worker

FEW, MANY = 100, 20_000
ROOM_MEGABYTES = 12
"""Of noise: the larger job's results are 60 MB, its keys 0.3."""
SHOW = """
import sys
from app.jobs.__main__ import main
code = main(sys.argv[1:])
sys.stderr.write(open("/proc/self/status").read())
sys.exit(code)
"""
"""The command, which tells its memory when it is done."""
RELATED = [
    {
        "manifestation_id": f"translation-{text}",
        "segments": [
            {"segment_id": f"translation-{text}.{at}", "span": {"start": at, "end": at + 9}} for at in range(8)
        ],
    }
    for text in range(5)
]
END = """
UPDATE segment_task SET status = 'COMPLETED', result_json = %(result)s::jsonb WHERE job_id = %(job_id)s::uuid;
UPDATE root_job SET status = 'COMPLETED', completed_segments = total_segments WHERE job_id = %(job_id)s::uuid
"""


def finished_job(engine: Engine, count: int, text: str) -> str:
    job_id = make_job(engine, count, text)
    run(engine, END, {"job_id": job_id, "result": json.dumps(RELATED)})
    return job_id


def read_by_every_route(client: httpx.Client, job_id: str, text: str) -> dict[str, int]:
    """Bytes that came, by route; nothing is kept."""
    read = {
        "all-relations": _read(client, f"/relation/{text}/all-relations"),
        "partial": _read(client, f"/relation/{text}/all-relations?partial=true&job_id={job_id}"),
        "job": _read(client, f"/jobs/{job_id}"),
        "status": _read(client, f"/relation/{job_id}/status"),
        "jobs": _read(client, f"/jobs?manifestation_id={text}"),
        "segments": 0,
    }
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": "500"} | ({"cursor": cursor} if cursor else {})
        page = client.get(f"/jobs/{job_id}/segments?{urlencode(query)}")
        read["segments"] += len(page.content)
        cursor = page.json()["next_cursor"]
    return read


def _read(client: httpx.Client, path: str) -> int:
    with client.stream("GET", path) as answer:
        assert answer.status_code == 200
        return sum(len(piece) for piece in answer.iter_bytes())


def peak_megabytes(server: Worker) -> float:
    """The most memory that the process has ever had."""
    return peak_of(Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii"))


def peak_of(status: str) -> float:
    """Megabytes, as Linux tells them of a process; those of its parent, before it was itself, do not count."""
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) / 1024


def test_a_job_of_20000_segments_costs_as_much_as_one_of_100(
    servers: Callable[..., tuple[Worker, httpx.Client]], environment: dict[str, str], engine: Engine
) -> None:
    few, many = finished_job(engine, FEW, "few"), finished_job(engine, MANY, "many")
    server, client = servers(environment)
    for _ in range(5):
        small = read_by_every_route(client, few, "few")
    before = peak_megabytes(server)
    large = read_by_every_route(client, many, "many")
    after = peak_megabytes(server)
    print(f"\n{FEW} segments: {small} bytes, peak {before:.1f} MB; {MANY}: {large} bytes, peak {after:.1f} MB")
    for route in ("all-relations", "partial", "segments"):
        assert large[route] > MANY / FEW * small[route] * 0.9
    assert after - before < ROOM_MEGABYTES


@pytest.mark.parametrize("written", FORMATS)
def test_a_job_of_20000_segments_is_shown_in_the_memory_of_one_of_100(
    environment: dict[str, str], engine: Engine, tmp_path: Path, written: str
) -> None:
    peaks, sizes = {}, {}
    for count in (FEW, MANY):
        out = tmp_path / f"{count}.{written}"
        peaks[count] = show_peak_megabytes(environment, finished_job(engine, count, "text"), written, out)
        sizes[count] = out.stat().st_size
        print(f"\n{written}: {count} segments, {sizes[count]} bytes, peak {peaks[count]:.1f} MB")
    assert sizes[MANY] > MANY / FEW * sizes[FEW] * 0.9
    assert peaks[MANY] - peaks[FEW] < ROOM_MEGABYTES


def show_peak_megabytes(environment: Mapping[str, str], job_id: str, written: str, out: Path) -> float:
    """The most memory that the command ever had."""
    with out.open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-c", SHOW, "show", job_id, "--format", written],
            cwd=ROOT,
            env=dict(environment),
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            check=True,
        )
    return peak_of(done.stderr)

"""What a job costs the HTTP server's memory does not grow with the job."""

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import httpx
from sqlalchemy import Engine

from app.db.postgres import run
from tests.support.jobs import make_job
from tests.support.worker import Worker

FEW, MANY = 100, 20_000
ROOM_MEGABYTES = 12
"""Of noise: the larger job's results are 60 MB, its keys 0.3."""
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
    status = Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii")
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

"""What a worker holds is bounded by bytes: segments with results of megabytes fit into a small instance."""

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from app.sqs.queue import Outgoing
from devstack.families import Annotation, Family, Segment
from tests.support.endstate import is_over, job_row, load_job, problems
from tests.support.engine import Engine
from tests.support.services import Queues
from tests.support.worker import Worker, wait_until

ASKED = 40
RELATED = 100_000
"""Of each: about 8 MB of JSON, so that eight lanes of ten hold 640 MB of results if nothing bounds them."""
INSTANCE_MEGABYTES = 512
LIMIT_SECONDS = 240

WRONG = """
SELECT count(*) FROM segment_task
WHERE job_id = CAST(:job AS uuid)
  AND (status <> 'COMPLETED' OR attempts <> 1 OR jsonb_array_length(result_json -> 0 -> 'segments') <> :related)
"""


def wide_family() -> Family:
    """Two texts and one alignment between the whole of each: every segment of one is related to all of the other."""
    spans = {"asked": ASKED, "related": RELATED}
    return Family(
        manifestations=("asked", "related"),
        annotations=tuple(
            Annotation(f"{name}.{kind}", name, kind) for name in spans for kind in ("segmentation", "alignment")
        ),
        segments=tuple(
            Segment(f"{name}.segmentation.{at}", f"{name}.segmentation", 10 * at, 10 * at + 10)
            for name, count in spans.items()
            for at in range(count)
        )
        + tuple(Segment(f"{name}.whole", f"{name}.alignment", 0, 10 * count) for name, count in spans.items()),
        aligned_annotations=(("asked.alignment", "related.alignment"),),
        aligned_segments=(("asked.whole", "related.whole"),),
    )


def peak_megabytes(worker: Worker) -> float:
    """The most memory that the process has ever had."""
    status = Path(f"/proc/{worker.process.pid}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


@pytest.mark.timeout(2 * LIMIT_SECONDS + 60)
def test_results_of_megabytes_fit_into_a_small_instance(
    environment: dict[str, str], engine: Engine, queues: Queues, load_graph: Callable[[Family], None]
) -> None:
    family = wide_family()
    load_graph(family)
    job = str(uuid.uuid4())
    bodies = load_job(engine, family, "asked", job_id=job)
    queues.segments.send([Outgoing(body) for body in bodies])
    with Worker(environment) as worker:
        wait_until(lambda: is_over(engine, job), "the job to end", LIMIT_SECONDS)
        peak = peak_megabytes(worker)
        assert worker.stop() == 0
    assert job_row(engine, job)["status"] == "COMPLETED"
    assert problems(engine) == []
    with engine.connect() as connection:
        assert connection.execute(text(WRONG), {"job": job, "related": RELATED}).scalar_one() == 0
    assert peak < INSTANCE_MEGABYTES

"""How large everything is: in full, for a quick look, and for the smoke test.

Invariant: the full sizes are those of the issue, whose limits are meant for them alone.
"""

from dataclasses import dataclass

from bench.generate import Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Segments and jobs are a run's; counts of segments a job unless said."""

    name: str
    looks: bool
    """Whether every variant is observed and counted, or those of the standard profile only."""
    family: Size
    """The standard one; jobs of all the segments of its root."""
    jobs: int
    """As many such jobs a run."""
    naive_segments: int
    """What a query a step does in a while."""
    pairs: tuple[int, ...]
    """Aligned segments a pair; texts grow with them, and the largest is also there with texts that do not."""
    texts: tuple[int, ...]
    cold_repeats: int
    large_family: Size
    large_job: int
    workers: tuple[int, ...]
    worker_job: int
    """Segments of the one job, or of four together, that workers share."""
    lanes: tuple[int, ...]
    """Batches in hand."""
    cloud_naive_segments: int
    memory_texts: tuple[int, ...]


FULL = Scale(
    name="full",
    looks=True,
    family=Size(texts=11, segments_per_text=2_000, aligned_per_pair=1_500),
    jobs=2,
    naive_segments=220,
    pairs=(1_500, 5_000, 15_000, 50_000),
    texts=(11, 50, 100, 200),
    cold_repeats=7,
    large_family=Size(texts=11, segments_per_text=20_000, aligned_per_pair=15_000),
    large_job=20_000,
    workers=(1, 2, 4),
    worker_job=8_000,
    lanes=(1, 2, 4, 8, 16, 24),
    cloud_naive_segments=80,
    memory_texts=(200, 400),
)
QUICK = Scale(
    name="quick",
    looks=False,
    family=Size(texts=11, segments_per_text=400, aligned_per_pair=300),
    jobs=2,
    naive_segments=30,
    pairs=(300, 1_500),
    texts=(11, 40),
    cold_repeats=2,
    large_family=Size(texts=11, segments_per_text=2_000, aligned_per_pair=1_500),
    large_job=2_000,
    workers=(1, 2),
    worker_job=800,
    lanes=(2, 16),
    cloud_naive_segments=15,
    memory_texts=(40, 80),
)
TINY = Scale(
    name="tiny",
    looks=False,
    family=Size(texts=4, segments_per_text=40, aligned_per_pair=30, reach=3),
    jobs=1,
    naive_segments=40,
    pairs=(30,),
    texts=(4,),
    cold_repeats=1,
    large_family=Size(texts=4, segments_per_text=40, aligned_per_pair=30, reach=3),
    large_job=40,
    workers=(1,),
    worker_job=40,
    lanes=(16,),
    cloud_naive_segments=10,
    memory_texts=(4,),
)

"""The profiles: what is compared with what.

Invariant: the variants of a profile are interleaved, one after the other in every repeat and in another order each
time, so that the machine's moods fall on all of them. A profile returns plain data, the JSON of bench/out.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bench import cold, graphs, jobs, moving, start, telling
from bench.earlier import EARLIER, EARLIER_WORKER, worker_of
from bench.generate import Size
from bench.graphs import Text
from bench.ground import Ground
from bench.jobs import as_sent
from bench.runner import run, run_with_results
from bench.runs import Plan, Run
from bench.sizes import Scale

type Data = dict[str, Any]

CLOUD_MS: Mapping[str, float] = {"sqs": 8.0, "postgres": 1.0, "neo4j": 5.0, "cache": 1.0}
COUNTED_NAIVE_SEGMENTS = 40


@dataclass(slots=True)
class Bench:
    """What a profile works with."""

    ground: Ground
    scale: Scale
    repeats: int
    seed: int
    say: Callable[[str], None]
    _texts: dict[tuple[Size, int], Text] = field(default_factory=dict)

    def text(self, size: Size, seed: int | None = None) -> Text:
        """The root of a family, loaded when it is first asked for."""
        key = size, self.seed if seed is None else seed
        if key not in self._texts:
            self._texts[key] = graphs.provide(self.ground.driver, *key, self.say)
        return self._texts[key]

    def run(self, label: str, plan: Plan) -> Run:
        """One run, with a line about it."""
        result = run(self.ground, plan)
        whole = "" if result.from_start is None else f", {result.from_start:,.1f} from process start"
        self.say(f"  {label:<28} {plan.way:<9} {result.steady:>8,.1f} segments/s steady{whole}")
        return result


@dataclass(frozen=True, slots=True)
class Variant:
    """One line of a profile. `value`: its place on the plot's axis. `looks`: other ways to look, after the repeats."""

    label: str
    value: float
    plan: Plan
    looks: tuple[Plan, ...] = ()


def compare(
    bench: Bench,
    variants: list[Variant],
    *,
    looks: bool | None = None,
    after_each: Callable[[], None] = lambda: None,
) -> list[Data]:
    """Run all of them, interleaved and repeated, and then each in the other ways; their data in the order given.

    `looks`: whether in the other ways as well; None: as the scale has it. `after_each`: what belongs to a repeat, too.
    """
    looks = bench.scale.looks if looks is None else looks
    timed: dict[str, list[Run]] = {variant.label: [] for variant in variants}
    for repeat in range(bench.repeats):
        turn = repeat % len(variants)
        for variant in variants[turn:] + variants[:turn]:
            timed[variant.label].append(bench.run(variant.label, variant.plan))
        after_each()
    return [
        {
            "label": variant.label,
            "value": variant.value,
            "runs": [asdict(each) for each in timed[variant.label]],
            **{plan.way: asdict(bench.run(variant.label, plan)) for plan in variant.looks if looks},
        }
        for variant in variants
    ]


def looked_at(label: str, value: float, plan: Plan, *, counted: Plan | None = None) -> Variant:
    """A variant that is observed and counted as well; `counted`: in another plan, such as a shorter one."""
    looks = (replace(plan, way="observed"), replace(counted or plan, way="counted"))
    return Variant(label, value, plan, looks)


def standard(bench: Bench) -> Data:
    """The three contestants on the standard family."""
    text = bench.text(bench.scale.family)
    plan = Plan(text=text, segments=bench.scale.family.segments_per_text, jobs=bench.scale.jobs)
    bench.say("  (a first run warms the services, and its results are what the floor stores)")
    _, results = run_with_results(bench.ground, replace(plan, jobs=1))
    naive = Plan(text=text, kind="naive", segments=bench.scale.naive_segments)
    short = replace(naive, segments=min(COUNTED_NAIVE_SEGMENTS, naive.segments))
    floor = replace(plan, kind="floor", results=[as_sent(result) for result in results.values()])
    variants = [
        looked_at("worker", 0, plan),
        looked_at("naive", 1, naive, counted=short),
        looked_at("floor", 2, floor),
    ]
    moving_ms: list[float] = []

    def move() -> None:
        with bench.ground.arena() as arena:
            made = jobs.make_jobs(arena, text, text.pick(plan.segments))
            moving_ms.append(moving.measure(arena, made.bodies))
        bench.say(f"  {'plain boto3, moving only':<28} {moving_ms[-1]:>17.3f} ms of processor a message")

    return {"variants": compare(bench, variants, looks=True, after_each=move), "moving_ms": moving_ms}


def pairs(bench: Bench) -> Data:
    """Ever more aligned segments a pair, in texts that grow with them; the most also in texts that do not."""
    base = bench.scale.family
    sizes = {
        f"{aligned:,}": base._replace(segments_per_text=aligned * 4 // 3, aligned_per_pair=aligned)
        for aligned in bench.scale.pairs
    }
    sizes[f"{bench.scale.pairs[-1]:,} in short texts"] = base._replace(aligned_per_pair=bench.scale.pairs[-1])
    segments = min(size.segments_per_text for size in sizes.values())
    return {"variants": compare(bench, list(_by_family(bench, sizes, segments, "aligned_per_pair")))}


def texts(bench: Bench) -> Data:
    """Ever more texts in the family; a segment's result stays as large as it was."""
    sizes = {f"{count} texts": bench.scale.family._replace(texts=count) for count in bench.scale.texts}
    return {"variants": compare(bench, list(_by_family(bench, sizes, bench.scale.family.segments_per_text, "texts")))}


def memory(bench: Bench) -> Data:
    """The largest family, and one of twice its size; the largest also by the earlier worker."""
    sizes = {f"{count} texts": bench.scale.family._replace(texts=count) for count in bench.scale.memory_texts}
    with worker_of(EARLIER) as tree:
        variants = list(_by_family(bench, sizes, bench.scale.family.segments_per_text, "texts"))
        plan = replace(variants[0].plan, settings={"PYTHONPATH": str(tree)})
        *compared, earlier = compare(bench, [*variants, Variant(f"{variants[0].label}, earlier", 0, plan)])
    return {"variants": compared, "earlier": earlier}


def _by_family(bench: Bench, sizes: Mapping[str, Size], segments: int, axis: str) -> Iterator[Variant]:
    for label, size in sizes.items():
        plan = Plan(text=bench.text(size), segments=segments, jobs=bench.scale.jobs)
        yield looked_at(label, getattr(size, axis), plan)


def large_job(bench: Bench) -> Data:
    """One long job against a short one of the same family."""
    text, long = bench.text(bench.scale.large_family), bench.scale.large_job
    short = min(long, bench.scale.family.segments_per_text)
    variants = [
        looked_at(f"{segments:,} segments", segments, Plan(text=text, segments=segments)) for segments in (short, long)
    ]
    return {"variants": compare(bench, variants)}


def workers(bench: Bench) -> Data:
    """Several workers on one job, and on four at a time."""
    text, total = bench.text(bench.scale.large_family), bench.scale.worker_job
    plans = {
        "one job": Plan(text=text, segments=total, idle_start=True),
        "four jobs": Plan(text=text, segments=total // 4, jobs=4, mixed=True, idle_start=True),
    }
    variants = [
        Variant(f"{_workers(count)}, {label}", count, replace(plan, workers=count))
        for label, plan in plans.items()
        for count in bench.scale.workers
    ]
    return {"variants": compare(bench, variants)}


def cloud(bench: Bench) -> Data:
    """Every service as far away as in a real region."""
    size = bench.scale.family
    plan = Plan(
        text=bench.text(size),
        segments=size.segments_per_text,
        jobs=2 * bench.scale.jobs,
        idle_start=True,
        latencies_ms=CLOUD_MS,
    )
    naive = replace(plan, kind="naive", segments=bench.scale.cloud_naive_segments, jobs=1)
    with worker_of(EARLIER) as tree:
        variants = [
            Variant("naive", 0, naive),
            *(Variant(_workers(count), count, replace(plan, workers=count)) for count in bench.scale.workers),
            Variant(EARLIER_WORKER, 0, replace(plan, settings={"PYTHONPATH": str(tree)})),
        ]
        *compared, earlier = compare(bench, variants, looks=False)
    return {"latencies_ms": dict(CLOUD_MS), "variants": compared, "earlier": earlier}


def lanes(bench: Bench) -> Data:
    """More and more batches in hand in one worker, with every service as far away as in a real region."""
    size = bench.scale.family
    plan = Plan(text=bench.text(size), segments=size.segments_per_text, jobs=2, idle_start=True, latencies_ms=CLOUD_MS)
    variants = [
        Variant(f"{count} in hand", count, replace(plan, settings={"SQS_BATCHES_IN_HAND": str(count)}))
        for count in bench.scale.lanes
    ]
    return {"latencies_ms": dict(CLOUD_MS), "variants": compare(bench, variants)}


def watched(bench: Bench) -> Data:
    """The same worker with and without somebody who may ask it how it goes."""
    size = bench.scale.family
    plan = Plan(text=bench.text(size), segments=size.segments_per_text, jobs=2 * bench.scale.jobs)
    variants = [
        Variant("not watched", 0, plan),
        Variant("watched", 1, replace(plan, settings={"METRICS_PORT": "0"})),
    ]
    return {"variants": compare(bench, variants, looks=False), "telling": telling.measure()}


def first_segment(bench: Bench) -> Data:
    """The first segment of a job, with no page anywhere but with warm plans: another family went before."""
    size = bench.scale.family
    return cold.measure(
        bench.ground, bench.text(size, bench.seed + 1), bench.text(size), bench.scale.cold_repeats, bench.say
    )


def first_start(bench: Bench) -> Data:
    """From the start of a process to its first committed segment, beside the earlier worker."""
    with worker_of(EARLIER) as tree:
        text = bench.text(bench.scale.family)
        return start.measure(bench.ground, text, tree, bench.scale.cold_repeats, bench.say)


def _workers(count: int) -> str:
    return f"{count} worker{'s' if count > 1 else ''}"


PROFILES: Mapping[str, Callable[[Bench], Data]] = {
    "standard": standard,
    "pairs": pairs,
    "texts": texts,
    "cold": first_segment,
    "start": first_start,
    "large-job": large_job,
    "workers": workers,
    "cloud": cloud,
    "lanes": lanes,
    "memory": memory,
    "watched": watched,
}

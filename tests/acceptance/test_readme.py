"""What README.md tells a newcomer to paste into a shell, pasted into one, on the tests' own stack."""

import json
from collections.abc import Callable
from pathlib import Path

from devstack.families import SMALL_FAMILY_PATH, Family
from devstack.stack import Stack
from tests.support.pasting import blocks, clone, environment_of, paste

FAMILY = Family.from_json(SMALL_FAMILY_PATH)


def test_the_block_for_working_by_hand_works_as_it_stands(
    stack: Stack, tmp_path: Path, load_graph: Callable[[Family], None]
) -> None:
    load_graph(Family((), (), (), (), ()))
    pasted = blocks("README.md", "Working on it by hand")[0]
    assert "#" not in pasted, "an interactive zsh takes no comments"
    printed = paste([pasted], clone(tmp_path), environment_of(stack, tmp_path))
    shown = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert sorted(row["segment_id"] for row in shown) == sorted(row.id for row in FAMILY.job_segments("root-bo"))
    assert {row["status"] for row in shown} == {"COMPLETED"}
    assert "COMPLETED 4 completed, 0 failed, 0 to do of 4" in printed

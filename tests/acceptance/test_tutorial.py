"""The tutorial from top to bottom in one shell, and what it says comes out does."""

import json
from collections.abc import Callable
from pathlib import Path

from devstack.families import Family
from devstack.stack import Stack
from tests.support.pasting import blocks, clone, environment_of, paste
from tests.support.services import ROOT

OUTPUTS = (
    "The graph holds alone, commentary-en, index-zh, root-bo, translation-en, translation-zh.",
    "Nothing is wrong with the graph (every node).",
    "1 segments have no span, for example 'poem-fr.verses.3'.",
    "COMPLETED 3 completed, 0 failed, 0 to do of 3",
)
"""Those that hold no id, time or port."""


def test_the_tutorial_works_as_it_stands(stack: Stack, tmp_path: Path, load_graph: Callable[[Family], None]) -> None:
    load_graph(Family((), (), (), (), ()))
    pasted = blocks("docs/tutorial.md")
    printed = paste(pasted, clone(tmp_path), environment_of(stack, tmp_path))

    shown = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    first, *before, last = shown
    assert first["segment_id"] == "root-bo.segmentation.0"
    related = [[segment["segment_id"] for text in row["related"] for segment in text["segments"]] for row in before]
    verses = ["poem-de.verses.1", "poem-de.verses.2", "poem-de.verses.3"]
    assert related == [verses[:2], verses[:2], verses[2:]]
    assert (last["segment_id"], last["related"]) == ("poem-fr.verses.3", [])

    document = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    for line in OUTPUTS:
        assert line in document.splitlines()
        assert line in printed.splitlines()

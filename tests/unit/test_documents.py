"""What the documents and the code's comments point to is there, in a clone as well."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
DOCUMENTS: Final = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
SOURCES: Final = sorted(
    path
    for folder in ("app", "alembic", "bench", "devstack", "scripts", "tests")
    for path in (ROOT / folder).rglob("*.py")
    if path != Path(__file__)
)
LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
FENCE: Final = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
CITATION: Final = re.compile(r'(docs/[\w/.-]+\.md)((?:,\s+"[^"]+")*)')


def headings(document: Path) -> list[str]:
    return HEADING.findall(FENCE.sub("", document.read_text(encoding="utf-8")))


def anchors(document: Path) -> set[str]:
    """As GitHub makes them."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(document)}


def dead_links(document: Path) -> Iterator[str]:
    for link in LINK.findall(FENCE.sub("", document.read_text(encoding="utf-8"))):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if "://" in link:
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    assert list(dead_links(document)) == []


def test_every_document_and_heading_that_the_code_cites_is_there() -> None:
    for source in SOURCES:
        for path, cited in CITATION.findall(source.read_text(encoding="utf-8")):
            assert (ROOT / path).is_file(), (source, path)
            missing = set(re.findall(r'"([^"]+)"', cited)) - set(headings(ROOT / path))
            assert not missing, (source, path, missing)


def test_nothing_is_cited_that_a_clone_lacks() -> None:
    pattern = re.compile(r"\bshared/\w+[/.]")
    files = [*DOCUMENTS, *SOURCES, ROOT / "pyproject.toml", ROOT / "env.example"]
    assert [path for path in files if pattern.search(path.read_text(encoding="utf-8"))] == []

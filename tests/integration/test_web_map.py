"""The relation map over real Neo4j, page by page as a browser gets it."""

from collections.abc import Callable, Iterator
from urllib.parse import urlencode

import httpx
import neo4j
import pytest

from app.web.page_map import TEXTS_LISTED
from devstack.families import SMALL_FAMILY_PATH, Family
from devstack.stack import Stack
from tests.support.answers import Question, example_files, read_example
from tests.support.pages import Page, find, query, words
from tests.support.servers import serving
from tests.support.services import base_environment

FAMILY = Family.from_json(SMALL_FAMILY_PATH)


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[httpx.Client]:
    """A server that knows the graph and nothing else: the map needs no more."""
    graph = {name: value for name, value in stack.env().items() if name.startswith("NEO4J_")}
    with serving({**base_environment(), **graph}) as client:
        yield client


def ask(client: httpx.Client, **fields: object) -> Page:
    return Page(client.get("/ui/map?" + urlencode(fields)))


def shown(page: Page) -> dict[str, list[tuple[str, int, int]]]:
    """What the map says is related: text to its segments, (id, start, end)."""
    related = {}
    for row in page.all("li", "row"):
        target = query(find(row, "a")[0].attrib["href"])["manifestation"]
        segments = [
            (words(link), int(query(link.attrib["href"])["start"]), int(query(link.attrib["href"])["end"]))
            for listed in find(row, "ol", "segments")
            for link in find(listed, "a")
        ]
        related[target] = segments
    return related


def wanted(question: Question) -> dict[str, list[tuple[str, int, int]]]:
    return {
        entry["manifestation_id"]: [
            (each["segment_id"], each["span"]["start"], each["span"]["end"]) for each in entry["segments"]
        ]
        for entry in question.related
    }


@pytest.mark.parametrize("path", example_files()[:3] + example_files()[-1:], ids=lambda path: path.stem)
def test_the_map_shows_the_published_answer(
    client: httpx.Client, load_graph: Callable[[Family], None], path: str
) -> None:
    family, questions = read_example(path)  # type: ignore[arg-type]
    # The server keeps pages of texts for half a minute: each family has names of its own.
    named = _renamed(family, path)
    load_graph(named)
    for question in questions[:: max(1, len(questions) // 12)]:
        page = ask(
            client,
            manifestation=_new(question.manifestation_id, path),
            start=question.start,
            end=question.end,
        )
        assert page.status == 200, page.text
        expected = {
            _new(name, path): sorted((_new(each[0], path), *each[1:]) for each in rows)
            for name, rows in wanted(question).items()
        }
        assert {name: sorted(rows) for name, rows in shown(page).items()} == expected


def _new(name: str, path: object) -> str:
    return f"{name}@{getattr(path, 'stem', path)}"


def _renamed(family: Family, path: object) -> Family:
    def new(name: str) -> str:
        return _new(name, path)

    graph = family.to_graph()
    return Family.from_graph(
        {
            "manifestations": [new(name) for name in graph["manifestations"]],
            "annotations": [
                {**row, "id": new(row["id"]), "manifestation": new(row["manifestation"])}
                for row in graph["annotations"]
            ],
            "segments": [
                {**row, "id": new(row["id"]), "annotation": new(row["annotation"])} for row in graph["segments"]
            ],
            "aligned_annotations": [[new(left), new(right)] for left, right in graph["aligned_annotations"]],
            "aligned_segments": [[new(left), new(right)] for left, right in graph["aligned_segments"]],
        }
    )


@pytest.fixture
def small(load_graph: Callable[[Family], None], request: pytest.FixtureRequest) -> Callable[[str], str]:
    """The small family under names of this test's own; tells a text's name."""
    load_graph(_renamed(FAMILY, request.node.name))
    return lambda name: _new(name, request.node.name)


def test_each_text_says_how_it_was_reached_and_leads_on(client: httpx.Client, small: Callable[[str], str]) -> None:
    page = ask(client, manifestation=small("root-bo"), start=0, end=40)
    row = next(each for each in page.all("li", "row") if small("commentary-en") in words(find(each, "h3")[0]))
    path = [query(each.attrib["href"]) for each in find(find(row, "p", "path")[0], "a")]
    assert [(each["manifestation"], each["start"], each["end"]) for each in path] == [
        (small("root-bo"), "0", "40"),
        (small("translation-en"), "0", "60"),
    ]
    assert f"by the alignment {small('com-en.right')} with {small('com-en.left')}" in words(row)
    onward = find(row, "a", "walk-on")[0].attrib["href"]
    assert query(onward) == {"manifestation": small("commentary-en"), "start": "0", "end": "350"}
    next_page = Page(client.get(onward))
    assert next_page.status == 200
    assert small("root-bo") in shown(next_page)


def test_every_bar_is_told_in_words_and_drawn_to_scale(client: httpx.Client, small: Callable[[str], str]) -> None:
    for scale, whole in (("own", 1_000.0), ("one", 300 / 600 * 1_000)):
        page = ask(client, manifestation=small("root-bo"), start=0, end=40, scale=scale)
        name = small("translation-en")
        drawing = next(each for each in page.all("svg", "bar") if each.attrib["aria-label"].startswith(name))
        assert drawing.attrib["role"] == "img"
        assert drawing.attrib["aria-label"] == f"{name}: [0, 60) of 300 characters"
        (bar,), (span,) = find(drawing, "rect", "whole"), find(drawing, "rect", "span")
        assert (float(bar.attrib["x"]), float(bar.attrib["width"])) == (0, whole)
        assert (float(span.attrib["x"]), float(span.attrib["width"])) == (0, whole * 60 / 300)


def test_titles_and_content_are_shown_where_the_graph_has_them(
    client: httpx.Client, small: Callable[[str], str], driver: neo4j.Driver
) -> None:
    """Offsets are characters, those that take two of Java's too; what is no text is passed over."""
    content = "𐐷" * 10 + "ab<b>cd&" + "ཀ་" * 200
    update = "MATCH (m:Manifestation {id: $id}) SET m.title = $title, m.content = $content"
    driver.execute_query(update, id=small("translation-en"), title="The <Title>", content=content)
    driver.execute_query(update, id=small("root-bo"), title="རྩ་བ", content="0123456789" * 22)
    driver.execute_query(update, id=small("translation-zh"), title=[1], content=7)
    page = ask(client, manifestation=small("root-bo"), start=0, end=40)
    assert "The <Title>" in page.links()
    assert small("translation-zh") in page.links()
    assert words(page.all("blockquote")[0]) == "0123456789" * 4
    row = next(each for each in page.all("li", "row") if words(find(each, "h3")[0]) == "The <Title>")
    assert words(find(row, "blockquote")[0]) == content[:60]
    assert words(find(row, "q")[0]) == content[:60]
    path = find(find(row, "p", "path")[0], "a")
    assert words(path[0]) == "རྩ་བ"


def test_a_segment_is_found_by_its_id(client: httpx.Client, small: Callable[[str], str]) -> None:
    answer = client.get(
        "/ui/map", params={"manifestation": small("root-bo"), "segment": small("root-bo.segmentation.1")}
    )
    assert answer.status_code == 303
    assert query(answer.headers["location"]) == {"manifestation": small("root-bo"), "start": "40", "end": "100"}
    page = ask(client, manifestation=small("root-bo"), segment="nothing")
    assert page.status == 404
    assert "has no segment 'nothing'" in page.text


def test_a_text_without_a_span_is_shown_whole_and_one_without_relations_says_so(
    client: httpx.Client, small: Callable[[str], str]
) -> None:
    page = ask(client, manifestation=small("root-bo"))
    assert page.status == 200
    assert "[0, 220)" in page.text
    lonely = ask(client, manifestation=small("alone"))
    assert lonely.status == 200
    assert "No related text" in lonely.text


def test_without_a_text_there_is_a_choice_of_texts(client: httpx.Client, load_graph: Callable[[Family], None]) -> None:
    names = [f"zzz-{at:02}" for at in range(TEXTS_LISTED + 1)]
    graph = {
        "manifestations": names,
        "annotations": [{"id": f"{name}.a", "manifestation": name, "type": "segmentation"} for name in names],
        "segments": [{"id": f"{name}.a.0", "annotation": f"{name}.a", "start": 0, "end": 10} for name in names],
        "aligned_annotations": [],
        "aligned_segments": [],
    }
    load_graph(Family.from_graph(graph))
    page = ask(client, after="zzz")
    links = page.links()
    assert [name for name in links if name.startswith("zzz-")] == names[:-1]
    assert query(links[names[0]]) == {"manifestation": names[0]}
    assert query(links["More texts"]) == {"after": names[-2]}
    assert [name for name in Page(client.get(links["More texts"])).links() if name in names] == names[-1:]


@pytest.mark.parametrize(
    ("fields", "status", "words_of_it"),
    [
        ({"manifestation": "nobody"}, 404, "the graph has no text 'nobody'"),
        ({"manifestation": "<script>alert(1)</script>"}, 404, "<script>"),
        ({"manifestation": "a\x00b"}, 422, "manifestation: the manifestation's id must not contain the NUL"),
        ({"manifestation": "x" * 513}, 422, "1 to 512 bytes"),
        ({"manifestation": "TEXT", "start": "-1", "end": "5"}, 422, "start: must be a whole number"),
        ({"manifestation": "TEXT", "start": "0", "end": "4.5"}, 422, "end: must be a whole number"),
        ({"manifestation": "TEXT", "start": "0", "end": "9" * 30}, 422, "end: must be a whole number"),
        ({"manifestation": "TEXT", "start": "٣", "end": "5"}, 422, "start: must be a whole number"),
        ({"manifestation": "TEXT", "start": "9", "end": "5"}, 422, "ends at 5, before its start at 9"),
        ({"manifestation": "TEXT", "start": "220", "end": "230"}, 422, "which the graph knows up to 220"),
        ({"manifestation": "TEXT", "start": "0", "end": "221"}, 422, "which the graph knows up to 220"),
        ({"manifestation": "TEXT", "start": "500"}, 422, "which the graph knows up to 220"),
        ({"manifestation": "TEXT", "scale": "two"}, 422, "scale: "),
        ({"manifestation": "TEXT", "first": "-1"}, 422, "first: "),
    ],
)
def test_what_makes_no_sense_is_told_in_words(
    client: httpx.Client, small: Callable[[str], str], fields: dict[str, str], status: int, words_of_it: str
) -> None:
    page = ask(client, **{name: small("root-bo") if value == "TEXT" else value for name, value in fields.items()})
    assert (page.status, words_of_it in page.text) == (status, True), page.text


def test_a_hundred_texts_a_page(client: httpx.Client, load_graph: Callable[[Family], None]) -> None:
    names = [f"star-{at:03}" for at in range(230)]
    graph = {
        "manifestations": ["star", *names],
        "annotations": [
            {"id": f"{name}.{side}", "manifestation": text, "type": "alignment"}
            for name in names
            for side, text in (("a", "star"), ("b", name))
        ],
        "segments": [
            {"id": f"{name}.{side}.0", "annotation": f"{name}.{side}", "start": 0, "end": 10}
            for name in names
            for side in "ab"
        ],
        "aligned_annotations": [[f"{name}.a", f"{name}.b"] for name in names],
        "aligned_segments": [[f"{name}.a.0", f"{name}.b.0"] for name in names],
    }
    load_graph(Family.from_graph(graph))
    page = ask(client, manifestation="star", start=0, end=10)
    found = list(shown(page))
    while more := page.links().get("The next texts"):
        page = Page(client.get(more))
        found += shown(page)
    assert found == names

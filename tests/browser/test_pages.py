"""The pages in a real Chromium: for everybody, by keyboard alone, without JavaScript, without other servers.

``SCREENSHOTS=docs`` has the pictures of the README taken anew.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path

import neo4j
import pytest
from playwright.sync_api import Browser, expect

from app.db.postgres import run
from app.sqs.queue import Outgoing, text_attribute
from devstack.families import SMALL_FAMILY_PATH, Family
from tests.support.browser import HEIGHT, INTERACTIVE, PROGRAM, WIDTH, Window, chromium
from tests.support.engine import Engine
from tests.support.jobs import claimed, complete, fail, make_job, statuses
from tests.support.servers import serving
from tests.support.services import Queues

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed: apt-get install chromium")

TOKEN = "a-token-of-the-browser-s"
SPAN = "/ui/map?manifestation=root-bo&start=40&end=150"
LIMIT_MS = 15_000
WRITTEN = {
    "root-bo": ("རྡོ་རྗེ་གཅོད་པ།", "་", "།", "འདི་སྐད་བདག་གིས་ཐོས་པ་དུས་གཅིག་ན་བཅོམ་ལྡན་འདས་མཉན་ཡོད་ན་རྒྱལ་བུ་རྒྱལ་བྱེད་ཀྱི་ཚལ"),
    "translation-en": (
        *("The Diamond Cutter", " ", ""),
        "Thus have I heard at one time: the Lord dwelt at Shravasti, in the Jeta Grove, in the garden of Anathapindika,"
        " with many monks.",
    ),
    "translation-zh": ("金剛經", "", "，", "如是我聞一時佛在舍衛國祇樹給孤獨園與大比丘眾千二百五十人俱"),
}
"""By text its title, what joins its words, what ends a line, and words."""


@dataclass(frozen=True)
class Site:
    """A server with something to see on each page, and the job that is half done."""

    origin: str
    job_id: str

    @property
    def pages(self) -> dict[str, int]:
        """Where to look, and the status there."""
        return {
            "/": 200,
            "/?status=FAILED&refresh=1": 200,
            f"/ui/jobs/{self.job_id}": 200,
            f"/ui/jobs/{self.job_id}?segments=FAILED": 200,
            "/ui/queues": 200,
            "/ui/workers": 200,
            "/ui/map": 200,
            "/ui/map?manifestation=root-bo&segment=root-bo.segmentation.1": 200,
            SPAN: 200,
            f"{SPAN}&scale=one": 200,
            "/ui/map?manifestation=alone": 200,
            "/ui/map?manifestation=nobody": 404,
            "/ui/jobs/none": 404,
        }


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium for all tests here."""
    expect.set_options(timeout=LIMIT_MS)
    with chromium() as browser:
        yield browser


@pytest.fixture
def site(
    environment: dict[str, str],
    engine: Engine,
    queues: Queues,
    load_graph: Callable[[Family], None],
    driver: neo4j.Driver,
) -> Iterator[Site]:
    """The app as a process; jobs in every state, a dead letter, texts with their content."""
    load_graph(Family.from_json(SMALL_FAMILY_PATH))
    write_texts(driver)
    make_ended_jobs(engine)
    job_id = make_half_done_job(engine)
    body = f'{{"job_id": "{job_id}", "manifestation_id": "root-bo", "segment_id": "s00021", "start": 210, "end": 220}}'
    queues.dead_letters.send([Outgoing(body, 0, {"reason": text_attribute("no such text")}), Outgoing("rubbish")])
    with serving({**environment, "API_TOKEN": TOKEN}) as client:
        yield Site(str(client.base_url).rstrip("/"), job_id)


def write_texts(driver: neo4j.Driver) -> None:
    """Titles and content; lines end where segments do."""
    family = Family.from_json(SMALL_FAMILY_PATH)
    for text, (title, joint, stop, words) in WRITTEN.items():
        annotations = {each.id for each in family.annotations if each.manifestation == text}
        spans = [each for each in family.segments if each.annotation in annotations]
        cuts = sorted({each.start for each in spans} | {each.end for each in spans})
        content = write(words.split(joint) if joint else list(words), joint, stop, cuts)
        update = "MATCH (m:Manifestation {id: $id}) SET m.title = $title, m.content = $content"
        driver.execute_query(update, id=text, title=title, content=content)


def write(words: Sequence[str], joint: str, stop: str, cuts: Sequence[int]) -> str:
    """These words over and over, a line from each cut to the next."""
    text, endless = "", cycle(words)
    word = next(endless)
    for low, high in pairwise(cuts):
        line, word = word, next(endless)
        while len(line + joint + word + stop) <= high - low:
            line, word = line + joint + word, next(endless)
        text += (line + stop).ljust(high - low)
    return text


def ids(names: range) -> list[str]:
    return [f"s{at:05}" for at in names]


def make_half_done_job(engine: Engine) -> str:
    """Of 22 segments 14 are completed, one has failed, two are held."""
    job_id = make_job(engine, 22)
    complete(engine, claimed(engine, job_id, ids(range(14))))
    fail(engine, claimed(engine, job_id, ids(range(14, 15))))
    claimed(engine, job_id, ids(range(15, 17)))
    settle(engine, job_id, "root-bo", made_seconds=170)
    return job_id


def make_ended_jobs(engine: Engine) -> None:
    """One that completed, one that failed in parts, one that was cancelled; and one that has not begun."""
    done, failed, cancelled, queued = (make_job(engine, count) for count in (96, 60, 6, 11))
    complete(engine, claimed(engine, done, ids(range(96))))
    complete(engine, claimed(engine, failed, ids(range(57))))
    fail(engine, claimed(engine, failed, ids(range(57, 60))))
    complete(engine, claimed(engine, cancelled, ids(range(2))))
    fail(engine, claimed(engine, cancelled, ids(range(2, 6))))
    run(
        engine,
        "UPDATE root_job SET cancelled_at = clock_timestamp() WHERE job_id = %(job)s::uuid",
        {"job": cancelled},
    )
    for job_id, text, made_seconds in (
        *((queued, "translation-zh", 20), (failed, "commentary-en", 900)),
        *((done, "translation-en", 1_500), (cancelled, "index-zh", 2_400)),
    ):
        settle(engine, job_id, text, made_seconds)


def settle(engine: Engine, job_id: str, text: str, made_seconds: int) -> None:
    """Give the job its text, and make it so old."""
    run(
        engine,
        "UPDATE root_job SET manifestation_id = %(text)s,"
        " created_at = clock_timestamp() - %(seconds)s * interval '1 second' WHERE job_id = %(job)s::uuid",
        {"text": text, "seconds": made_seconds, "job": job_id},
    )


def log_in(window: Window) -> None:
    """By the form, with the keyboard alone."""
    window.page.goto("/")
    window.reach(window.page.get_by_label("Token"))
    window.page.keyboard.type(TOKEN)
    window.press(window.page.get_by_role("button", name="Log in"))
    expect(window.page.get_by_role("heading", level=1)).to_have_text("Jobs")


def test_every_page_is_for_everybody_and_whole_without_scripts(browser: Browser, site: Site) -> None:
    window = Window(browser, site.origin, with_scripts=True)
    plain = Window(browser, site.origin, with_scripts=False)
    faults = {}
    window.open("/ui/login")
    faults["/ui/login"] = window.unreachable() + window.violations()
    window.page.get_by_label("Token").fill("wrong")
    window.page.keyboard.press("Enter")
    expect(window.page.get_by_role("alert")).to_have_text("That is not the token.")
    faults["wrong token"] = window.unreachable() + window.violations()
    log_in(window)
    log_in(plain)
    for path, status in site.pages.items():
        window.open(path, status)
        plain.open(path, status)
        heading, parts = plain.page.get_by_role("heading", level=1), plain.page.locator(INTERACTIVE)
        expect(heading).to_have_text(window.page.get_by_role("heading", level=1).inner_text())
        expect(parts).to_have_count(window.page.locator(INTERACTIVE).count())
        faults[path] = window.unreachable() + window.violations()
    assert {path: found for path, found in faults.items() if found} == {}
    assert window.faults + plain.faults == []
    if folder := os.environ.get("SCREENSHOTS"):
        take_pictures(window, Path(folder))


def take_pictures(window: Window, folder: Path) -> None:
    """The README's: the jobs, and the map of a span."""
    for name, path in (("jobs.png", "/"), ("map.png", SPAN)):
        window.open(path)
        height = window.page.evaluate("document.querySelector('main').getBoundingClientRect().bottom")
        cut = {"x": 0.0, "y": 0.0, "width": float(WIDTH), "height": min(float(height), HEIGHT)}
        window.page.screenshot(path=folder / name, clip=cut)  # type: ignore[arg-type]


def test_a_job_is_retried_and_cancelled_by_keyboard_without_scripts(
    browser: Browser, site: Site, engine: Engine
) -> None:
    window = Window(browser, site.origin, with_scripts=False)
    page = window.page
    log_in(window)
    window.press(page.get_by_role("link", name=site.job_id[:8]))
    expect(page.get_by_role("heading", level=1)).to_contain_text(site.job_id)
    window.press(page.get_by_role("button", name="Retry 1 failed segment"))
    expect(page.get_by_role("status")).to_contain_text("queued again")
    assert "FAILED" not in statuses(engine, site.job_id)
    window.press(page.get_by_role("button", name="Cancel the job"))
    expect(page.get_by_role("status")).to_contain_text("cancelled")
    assert statuses(engine, site.job_id) == {"COMPLETED": 14, "FAILED": 8}
    window.press(page.get_by_role("link", name="Queues"))
    window.press(page.get_by_role("button", name="Send back s00021"))
    expect(page.get_by_role("status")).to_contain_text("1 dead letter went back")
    window.press(page.get_by_role("button", name="Log out"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    assert window.faults == []


def test_the_map_is_walked_without_scripts(browser: Browser, site: Site) -> None:
    window = Window(browser, site.origin, with_scripts=False)
    page = window.page
    log_in(window)
    window.press(page.get_by_role("link", name="Relation map"))
    for label, value in (("Text", "root-bo"), ("Start", "40"), ("End", "100")):
        window.reach(page.get_by_label(label, exact=True))
        page.keyboard.type(value)
    page.keyboard.press("Enter")
    itself = page.get_by_role("heading", level=2).first
    expect(itself).to_have_text("རྡོ་རྗེ་གཅོད་པ། [40, 100)")
    related = page.get_by_role("listitem").filter(has=page.get_by_role("heading", name="The Diamond Cutter"))
    window.press(related.locator("summary"))
    expect(related.get_by_role("link", name="translation-en.segmentation.1")).to_be_visible()
    related.locator(".walk-on").click()
    expect(itself).to_contain_text("The Diamond Cutter [60, 210)")
    window.press(page.get_by_role("heading", name="commentary-en").get_by_role("link"))
    expect(itself).to_contain_text("commentary-en [")
    assert window.faults == []

"""A real browser at the pages: Chromium, led by Playwright and judged by axe.

Invariant: what a window asks of other servers, or complains of, fails the test that looks at it.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from playwright.sync_api import Browser, ConsoleMessage, Locator, Request, Response, expect, sync_playwright

from tests.support.pages import Page

PROGRAM: Final = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTH: Final = 1_280
HEIGHT: Final = 1_000
MOST_TABS: Final = 200
AXE: Final = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
AXE_OPTIONS: Final = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "preload": False,  # else it fetches style sheets, which the pages' policy forbids
}
INTERACTIVE: Final = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']"
# Looks at what has the focus, and tells what has not had it yet.
LOOK: Final = """
(interactive) => {
    const reached = (window.reachedByTab ??= new Set()), focused = document.activeElement;
    reached.add(focused);
    return {
        isClosed: focused.matches("details:not([open]) > summary"),
        isUnseen: focused.matches(interactive) && getComputedStyle(focused).outlineStyle === "none"
            && focused.outerHTML,
        missing: [...document.querySelectorAll(interactive)]
            .filter((each) => each.checkVisibility() && !reached.has(each))
            .map((each) => each.outerHTML),
    };
}
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a screen."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=arguments)
        yield browser
        browser.close()


class Window:
    """A window of its own session, with or without JavaScript."""

    def __init__(self, browser: Browser, origin: str, *, with_scripts: bool) -> None:
        self.faults: list[str] = []
        """What it asked of others, what it did not get, and what it complained of."""
        self._origin = origin
        context = browser.new_context(
            base_url=origin, java_script_enabled=with_scripts, viewport={"width": WIDTH, "height": HEIGHT}
        )
        self.page = context.new_page()
        context.on("request", self._note_request)
        context.on("response", self._note_response)
        context.on("requestfailed", lambda request: self.faults.append(f"failed: {request.url} {request.failure}"))
        context.on("console", self._note_complaint)
        context.on("weberror", lambda error: self.faults.append(str(error.error)))

    def _note_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if f"{parts.scheme}://{parts.netloc}" != self._origin:
            self.faults.append(f"asked for {request.url}")

    def _note_response(self, response: Response) -> None:
        if response.status >= 400 and response.request.resource_type != "document":
            self.faults.append(f"{response.status} for {response.url}")

    def _note_complaint(self, message: ConsoleMessage) -> None:
        # That an answer has an error's status is told of documents, too, which may be meant to have one.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource: the server"):
            self.faults.append(f"{message.type}: {message.text}")

    def open(self, path: str, status: int = 200) -> None:
        """Go there; what comes has this status and is a valid page, which names no other server."""
        response = self.page.goto(path)
        assert response is not None
        assert response.status == status, path
        Page(httpx.Response(status, headers=response.headers, content=response.body()))

    def reach(self, target: Locator) -> None:
        """Press Tab until `target` has the focus."""
        expect(target).to_be_visible()
        for _ in range(MOST_TABS):
            if target.evaluate("each => each === document.activeElement"):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"{target} is not reached by Tab")

    def press(self, target: Locator) -> None:
        """Use a link or a button with the keyboard alone."""
        self.reach(target)
        self.page.keyboard.press("Enter")

    def unreachable(self) -> list[str]:
        """What Tab does not lead to, or where it is not seen to be, once all that can be opened is open."""
        unseen = set()
        look: dict[str, Any] = {}
        for _ in range(MOST_TABS):
            look = self.page.evaluate(LOOK, INTERACTIVE)
            if look["isUnseen"]:
                unseen.add(f"focus not seen: {look['isUnseen']}")
            if look["isClosed"]:
                self.page.keyboard.press("Enter")
            elif not look["missing"]:
                break
            self.page.keyboard.press("Tab")
        return [f"not reached by Tab: {each}" for each in look["missing"]] + sorted(unseen)

    def violations(self) -> list[str]:
        """What axe finds."""
        self.page.evaluate(AXE)
        found = self.page.evaluate("options => axe.run(options)", AXE_OPTIONS)
        return [
            f"{each['id']} ({each['help']}): {node['html']}" for each in found["violations"] for node in each["nodes"]
        ]

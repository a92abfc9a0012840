"""Open a report in a real, headless Chromium; whatever it complains about, or loads from elsewhere, fails."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


def find_browser() -> str:
    """Return the path of a Chromium, or skip the test and say why."""
    pytest.importorskip("playwright", reason="needs Playwright's Python package")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("needs a browser: install chromium, or name one in CHROMIUM")
    return found


@contextmanager
def started() -> Iterator[Browser]:
    """Run a browser; skip the test where there is none."""
    path = find_browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
        yield browser
        browser.close()


def until(page: Page, expression: str, seconds: float = 30) -> None:
    """Wait until a JavaScript expression is true: Playwright's own way needs what the page forbids, eval."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(10)


@contextmanager
def opened(browser: Browser, page: Path | str, width: int = 1280, **options: Any) -> Iterator[Page]:
    """Open a page, a file or a URL, in a window of a width. At the end nothing may be in its console."""
    url = page if isinstance(page, str) else page.absolute().as_uri()
    own = ("data:", url.rpartition("/")[0])
    context = browser.new_context(viewport={"width": width, "height": 900}, **options)
    try:
        tab = context.new_page()
        complaints: list[str] = []
        # Only tests read the canvas back, and are told how to do it faster.
        tab.on("console", lambda m: None if "willReadFrequently" in m.text else complaints.append(m.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("dialog", lambda dialog: complaints.append(dialog.message))
        tab.on("requestfailed", lambda request: complaints.append(f"{request.url}: {request.failure}"))
        tab.on(
            "request",
            lambda request: None if request.url.startswith(own) else complaints.append(request.url),
        )
        tab.goto(url)
        tab.wait_for_selector(".card, .empty")
        yield tab
        assert not complaints, "\n".join(complaints)
    finally:
        context.close()


@contextmanager
def tasks_of(browser: Browser, page: Page) -> Iterator[list[float]]:
    """Collect the CPU time in ms of each task of a page's main thread; the list is full at the end.

    By the clock, a task takes as long as a busy machine lets it wait.
    """
    tasks: list[float] = []
    browser.start_tracing(page=page, categories=["toplevel"])
    yield tasks
    events = json.loads(browser.stop_tracing())["traceEvents"]
    main = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    tasks += [
        event["tdur"] / 1000
        for event in events
        if "RunTask" in event["name"] and "tdur" in event and (event["pid"], event["tid"]) in main
    ]

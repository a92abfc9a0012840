"""Take report.jpg, the README's picture of a report, from what ``make demo`` wrote; needs a Chromium."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from fcn_cli.__main__ import run

HERE = Path(__file__).parent
DEMO = HERE.parent / "demo_output"
WIDTH, HEIGHT, GAP = 1200, 880, 16
SHOWN = (720, 528)


def main() -> None:
    """Put the page in light beside a large view in dark."""
    if run(["report", str(DEMO), "--quiet"]):
        raise SystemExit("run `make demo` first")
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        pictures = [_grid(browser), _large_view(browser)]
        browser.close()
    both = Image.new("RGB", (2 * SHOWN[0] + GAP, SHOWN[1]), "white")
    for place, picture in enumerate(pictures):
        both.paste(picture.resize(SHOWN, Image.Resampling.LANCZOS), (place * (SHOWN[0] + GAP), 0))
    both.save(HERE / "report.jpg", quality=82, optimize=True)


def _grid(browser: Browser) -> Image.Image:
    page = _open(browser, "light")
    page.evaluate("document.getElementById('classes-title').scrollIntoView()")
    return _shot(page)


def _large_view(browser: Browser) -> Image.Image:
    page = _open(browser, "dark")
    page.click(".card:has-text('chelsea') .frame")
    page.wait_for_selector("#viewer-layer[aria-label*='chelsea']")
    box = page.locator("#stage").bounding_box()
    if box is not None:
        page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.45 * box["height"])
    return _shot(page)


def _open(browser: Browser, scheme: str) -> Page:
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, reduced_motion="reduce")
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.goto((DEMO / "report.html").as_uri())
    page.wait_for_selector(".card")
    return page


def _shot(page: Page) -> Image.Image:
    page.wait_for_load_state("networkidle")
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


if __name__ == "__main__":
    main()

"""The reports in a real browser, by clicking and typing."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from ..conftest import PREVIEW, SAMPLES, SMALL, journal_of, run_process
from .browser import opened, started, tasks_of, until
from .made import AREA, write_images, write_output
from .pages import percent_in, read_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, CDPSession, Page

pytestmark = pytest.mark.slow

EVIL = "<img src=x onerror=document.title='broken'>.jpg"
ODD = (EVIL, "a#b?c%20d.jpg", 'it\'s "quoted" & more.jpg', "sub dir/ü.jpg")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started() as running:
        yield running


@pytest.fixture(scope="module")
def samples(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the sample images, with confidence; it needs a browser, so that none is made in vain."""
    folder = tmp_path_factory.mktemp("samples")
    run_process(
        "segment", SAMPLES, *PREVIEW, "--write", "masks,color,confidence", "-o", "out", "--report", cwd=folder
    )
    return folder / "out"


@pytest.fixture(scope="module")
def many(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of 3,000 generated images; the mask of image N has N pixels of class 8 (of 3,072)."""
    folder = tmp_path_factory.mktemp("many")
    write_images(folder, 3000)
    run_process("report", "out", cwd=folder)
    return folder / "out"


def names(page: Page) -> list[str]:
    return page.locator(".card .name").all_text_contents()


def settled(page: Page, count: int) -> list[str]:
    """Return the names on the page once so many are shown."""
    until(page, f"document.querySelectorAll('.card').length === {count}")
    return names(page)


def broken_images(page: Page) -> int:
    """Scroll through the page so that all its pictures load; return how many have no pixels."""
    page.evaluate("for (const image of document.querySelectorAll('.grid img')) image.loading = 'eager'")
    until(page, "[...document.querySelectorAll('.grid img')].every((image) => image.complete)")
    return int(
        page.evaluate("[...document.querySelectorAll('.grid img')].filter((i) => !i.naturalWidth).length")
    )


def wipe_of(page: Page, selector: str) -> float:
    """Return where the divider of a picture is, in percent, as it is painted."""
    inset = page.eval_on_selector(selector, "(layer) => getComputedStyle(layer).clipPath")
    return float(inset.removeprefix("inset(").rstrip(")").split()[-1].rstrip("%px)"))


def focused(page: Page) -> str:
    """Return the name of the image whose card has the focus, or else the id of what has it."""
    return str(
        page.evaluate(
            """() => {
                const at = document.activeElement;
                return at.closest('.card')?.querySelector('.name').textContent ?? at.id;
            }"""
        )
    )


def test_pictures_load_and_nothing_else_does(browser: Browser, samples: Path) -> None:
    with opened(browser, samples / "report.html") as page:
        assert names(page) == ["astronaut.png", "chelsea.png", "coffee.png", "grace_hopper.jpg"]
        assert page.locator(".grid img").count() == 8
        assert broken_images(page) == 0
        widths = page.locator(".grid img.image").evaluate_all(
            "(all) => all.map((image) => image.naturalWidth)"
        )
        with Image.open(SAMPLES / "grace_hopper.jpg") as image:
            assert widths == [320, 320, 320, round(320 * image.width / image.height)]


def test_filter_by_class_and_least_share(browser: Browser, samples: Path) -> None:
    records = journal_of(samples)
    share = {
        name: {int(k): v / (r["width"] * r["height"]) for k, v in r["classes"].items()}
        for name, r in records.items()
    }
    names_with = {
        (index, least): [
            name for name in sorted(share) if share[name].get(index, 0) >= max(least / 100, 1e-9)
        ]
        for index in range(1, 21)
        for least in range(100)
    }
    # Of some images with a class, a least share leaves some.
    index, least = next(
        chosen for chosen, kept in names_with.items() if 0 < len(kept) < len(names_with[chosen[0], 0])
    )
    with opened(browser, samples / "report.html") as page:
        page.select_option("#class", str(index))
        assert settled(page, len(names_with[index, 0])) == names_with[index, 0]
        page.focus("#least")
        for _ in range(least):
            page.keyboard.press("ArrowRight")
        kept = names_with[index, least]
        assert settled(page, len(kept)) == kept
        assert page.inner_text("#least-text") == f"{least} %"
        assert page.inner_text("#status") == f"{len(kept)} of 4 images"
        # What is chosen survives a reload.
        until(page, f"location.hash.includes('least={least / 100}')")
        page.reload()
        assert settled(page, len(kept)) == kept
        page.locator("body").press("x")
        assert len(settled(page, 4)) == 4
        page.fill("#text", "COFF")
        assert settled(page, 1) == ["coffee.png"]
        page.fill("#text", "no such name")
        page.wait_for_selector(".empty")


def test_sort(browser: Browser, samples: Path) -> None:
    records = journal_of(samples)
    with opened(browser, samples / "report.html") as page:
        page.select_option("#sort", "confidence")
        by_confidence = sorted(records, key=lambda name: records[name]["mean_confidence"])
        page.wait_for_selector(".value")
        assert names(page) == by_confidence
        page.click("#direction")
        until(page, f"document.querySelector('.name').textContent === '{by_confidence[-1]}'")
        assert names(page) == by_confidence[::-1]
        page.select_option("#sort", "class-15")
        until(page, "document.querySelector('.value').textContent.startsWith('person')")
        shares = [percent_in(text.replace("<", "")) for text in page.locator(".value").all_text_contents()]
        assert shares == sorted(shares, reverse=True)
        page.select_option("#sort", "seconds")
        until(page, "document.querySelector('.value').textContent.endsWith(' s')")
        assert names(page) == sorted(records, key=lambda name: -records[name]["seconds"])
        page.select_option("#sort", "name")
        until(page, "!document.querySelector('.value')")
        assert names(page) == sorted(records)


def test_a_click_on_a_bar_shows_that_class(browser: Browser, samples: Path) -> None:
    with opened(browser, samples / "report.html") as page:
        page.click(".class-name:has-text('cat')")
        assert settled(page, 1) == ["chelsea.png"]
        assert focused(page) == "class"


def test_wipe(browser: Browser, samples: Path) -> None:
    first, second = ".card:nth-child(1) .layer", ".card:nth-child(2) .layer"
    with opened(browser, samples / "report.html") as page:
        assert wipe_of(page, first) == 50
        page.focus(".card:nth-child(1) input")
        for _ in range(5):
            page.keyboard.press("ArrowRight")
        assert (wipe_of(page, first), wipe_of(page, second)) == (55, 50)
        page.keyboard.press("[")
        assert wipe_of(page, first) == 45
        box = page.locator(".card:nth-child(2) .stack").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + 30, steps=5)
        page.mouse.up()
        assert wipe_of(page, second) == pytest.approx(20, abs=1)
        # A drag is not a click.
        assert not page.locator("#viewer").is_visible()
        page.focus("#wipe-all")
        page.keyboard.press("Home")
        assert (wipe_of(page, first), wipe_of(page, second)) == (0, 0)
        assert page.locator(".card input").evaluate_all("(all) => all.map((each) => each.value)") == ["0"] * 4


def test_overlay_and_classes(browser: Browser, samples: Path) -> None:
    with opened(browser, samples / "report.html") as page:
        page.focus("#wipe-all")
        page.keyboard.press("Home")
        opacity = "() => getComputedStyle(document.querySelector('.layer')).opacity"
        assert page.evaluate(opacity) == "0.6"
        page.click("#views label:has-text('Classes')")
        assert page.evaluate(opacity) == "1"
        alt = str(page.get_attribute(".layer", "alt"))
        assert alt.startswith("Classes of astronaut.png: ")
        assert "person" in alt
        page.keyboard.press("v")
        assert page.evaluate(opacity) == "0.6"


def test_the_large_view_names_the_class_under_the_pointer(browser: Browser, samples: Path) -> None:
    labels = np.array(Image.open(samples / "masks/coffee.png"))
    names_of = {int(k): v["name"] for k, v in json.loads((samples / "classes.json").read_text()).items()}
    colors = {int(k): v["color"] for k, v in json.loads((samples / "classes.json").read_text()).items()}
    height, width = labels.shape
    with opened(browser, samples / "report.html") as page:
        page.click(".card:nth-child(3) .frame")
        until(page, "document.querySelector('#viewer-layer').width > 300")
        until(page, "document.querySelector('#viewer-picture').naturalWidth > 0")
        box = page.locator("#stage").bounding_box()
        assert box is not None
        assert box["width"] / box["height"] == pytest.approx(width / height, rel=0.01)
        seen = set()
        present = np.unique(labels).tolist()
        for y, x in (np.argwhere(labels == index)[-1].tolist() for index in present):
            page.mouse.move(
                box["x"] + (x + 0.5) * box["width"] / width, box["y"] + (y + 0.5) * box["height"] / height
            )
            expected = names_of[int(labels[y, x])]
            assert page.inner_text("#probe-text") == expected
            assert page.inner_text("#tip") == expected
            seen.add(expected)
        assert seen == {names_of[index] for index in present}
        assert len(seen) >= 2
        # The canvas has the colours of the classes, and lights one class alone.
        pixel = """([x, y]) => {
            const context = document.querySelector('#viewer-layer').getContext('2d');
            return [...context.getImageData(x, y, 1, 1).data];
        }"""
        y, x = np.argwhere(labels == present[-1])[0].tolist()
        assert page.evaluate(pixel, [x, y]) == [*colors[present[-1]], 255]
        page.hover(f"#viewer-classes [data-id='{present[0]}']")
        assert page.evaluate(pixel, [x, y])[3] == 0
        page.click("#viewer-views label:has-text('Classes')")
        assert page.evaluate("document.querySelector('#viewer-layer').style.opacity") == "1"


def test_the_large_view_by_keyboard(browser: Browser, samples: Path) -> None:
    labels = np.array(Image.open(samples / "masks/chelsea.png"))
    with opened(browser, samples / "report.html") as page:
        page.keyboard.press("g")
        assert focused(page) == "astronaut.png"
        page.keyboard.press("ArrowRight")
        assert focused(page) == "chelsea.png"
        page.keyboard.press("Enter")
        assert page.inner_text("#viewer-name") == "chelsea.png"
        assert page.inner_text("#viewer-place") == "2 of 4"
        until(page, "document.querySelector('#viewer-layer').width > 300")
        page.keyboard.press("ArrowRight")
        until(page, "document.querySelector('#viewer-name').textContent === 'coffee.png'")
        page.keyboard.press("ArrowLeft")
        until(page, "document.querySelector('#viewer-name').textContent === 'chelsea.png'")
        until(page, "document.querySelector('#viewer-layer').width === 451")
        before = wipe_of(page, "#viewer-layer")
        page.keyboard.press("]")
        assert wipe_of(page, "#viewer-layer") == before + 10
        page.focus("#viewport")
        page.keyboard.press("ArrowRight")
        middle = int(labels[labels.shape[0] // 2, labels.shape[1] // 2])
        assert page.inner_text("#probe-text") == {8: "cat", 0: "__background__"}[middle]
        assert page.locator("#probe").is_visible()
        for _ in range(12):
            page.keyboard.press("Shift+ArrowRight")
        assert (
            page.inner_text("#probe-text")
            == {8: "cat", 0: "__background__"}[int(labels[labels.shape[0] // 2, -1])]
        )
        page.keyboard.press("v")
        assert page.locator("#viewer-views input[value=classes]").is_checked()
        page.keyboard.press("Escape")
        assert not page.locator("#viewer").is_visible()
        assert focused(page) == "chelsea.png"


def test_help_and_the_order_of_tab(browser: Browser, samples: Path) -> None:
    with opened(browser, samples / "report.html") as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the images"
        page.keyboard.press("?")
        assert page.locator("#help").is_visible()
        assert "next and previous page" in page.inner_text("#help")
        page.keyboard.press("Escape")
        assert not page.locator("#help").is_visible()
        for key, place in (("/", "text"), ("c", "class"), ("s", "sort")):
            page.keyboard.press(key)
            assert focused(page) == place
            page.evaluate("document.activeElement.blur()")
        page.keyboard.press("/")
        page.keyboard.type("gcs?")
        assert page.input_value("#text") == "gcs?"
        page.fill("#text", "")
        # What was typed counts a little later.
        page.wait_for_timeout(500)
        settled(page, 4)
        page.evaluate("document.activeElement.blur()")
        # The grid is one stop, and the slider of its image another.
        page.keyboard.press("g")
        page.keyboard.press("End")
        assert focused(page) == "grace_hopper.jpg"
        assert page.locator(".grid [tabindex='0']").count() == 2
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.type") == "range"


def test_single_character_shortcuts_can_be_switched_off(browser: Browser, samples: Path) -> None:
    with opened(browser, samples / "report.html") as page:
        page.keyboard.press("?")
        page.locator("#shortcuts").focus()
        page.keyboard.press("Space")
        page.keyboard.press("Escape")
        # It is kept.
        page.reload()
        settled(page, 4)
        for key in "?/csvrgnpx":
            page.keyboard.press(key)
        assert not page.locator("#help").is_visible()
        assert page.evaluate("document.activeElement === document.body")
        page.locator(".card .frame").first.focus()
        before = wipe_of(page, ".card:nth-child(1) .layer")
        page.keyboard.press("]")
        assert wipe_of(page, ".card:nth-child(1) .layer") == before
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        until(page, "document.querySelector('#viewer-layer').width === 451")
        for key in "nvo+8[":
            page.keyboard.press(key)
        assert page.inner_text("#viewer-name") == "chelsea.png"
        assert page.locator("#viewer-on").is_checked()
        assert scale_of(page) == pytest.approx(fit_of(page), rel=1e-3)
        page.keyboard.press("Escape")
        page.click("#help-button")
        page.check("#shortcuts")
        page.keyboard.press("Escape")
        page.keyboard.press("/")
        assert focused(page) == "text"


def tab_to(page: Page, attribute: str, value: str) -> None:
    """Press Tab until the element in focus has this, at most 30 times."""
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate(f"document.activeElement.{attribute}") == value:
            break


def scale_of(page: Page) -> float:
    """Return how many pixels of the screen one of the picture takes."""
    box = page.locator("#stage").bounding_box()
    assert box is not None
    return box["width"] / int(page.evaluate("document.querySelector('#viewer-picture').naturalWidth"))


def fit_of(page: Page) -> float:
    room: list[float] = page.eval_on_selector("#viewport", "(each) => [each.clientWidth, each.clientHeight]")
    size: list[float] = page.eval_on_selector(
        "#viewer-picture", "(each) => [each.naturalWidth, each.naturalHeight]"
    )
    return min((room[way] - 24) / size[way] for way in (0, 1))


def pixel_under(page: Page, x: float, y: float) -> tuple[int, int]:
    """Return the pixel of the picture at a place of the window."""
    box = page.locator("#stage").bounding_box()
    assert box is not None
    return int((x - box["x"]) / scale_of(page)), int((y - box["y"]) / scale_of(page))


def open_cat(page: Page) -> None:
    page.click(".card:nth-child(2) .frame")
    until(page, "document.querySelector('#viewer-layer').width === 451")
    until(page, "document.querySelector('#viewer-picture').naturalWidth === 451")


def test_zoom_by_wheel_and_drag(browser: Browser, samples: Path) -> None:
    labels = np.array(Image.open(samples / "masks/chelsea.png"))
    names_of = {8: "cat", 0: "__background__"}
    with opened(browser, samples / "report.html") as page:
        open_cat(page)
        fit = scale_of(page)
        view = page.locator("#viewport").bounding_box()
        assert view is not None
        at = (500, view["y"] + view["height"] / 2)
        pixel = pixel_under(page, *at)
        page.mouse.move(*at)
        for _ in range(12):
            page.mouse.wheel(0, -120)
        assert scale_of(page) > 8 > fit
        # What is under the pointer stays there.
        assert pixel_under(page, *at) == pytest.approx(pixel, abs=1)
        assert page.locator(".stack > .lines").is_visible()
        rendering = "(each) => getComputedStyle(each).imageRendering"
        assert page.eval_on_selector("#viewer-picture", rendering) == "pixelated"
        page.mouse.move(at[0] + 1, at[1])
        x, y = pixel_under(page, at[0] + 1, at[1])
        assert page.inner_text("#probe-text") == names_of[int(labels[y, x])]
        # The handle of the wipe is somewhere; a drag away from it moves the picture.
        box = page.locator("#stage").bounding_box()
        wiper = box["x"] + box["width"] / 2 if box else 0
        start = at if abs(wiper - at[0]) > 30 else (at[0] + 100, at[1])
        held = pixel_under(page, *start)
        page.mouse.move(*start)
        page.mouse.down()
        page.mouse.move(start[0] + 60, start[1] + 45, steps=4)
        page.mouse.up()
        assert pixel_under(page, start[0] + 60, start[1] + 45) == pytest.approx(held, abs=1)
        for _ in range(40):
            page.mouse.wheel(0, 240)
        assert scale_of(page) == pytest.approx(fit, rel=1e-3)
        assert not page.locator(".stack > .lines").is_visible()
        page.mouse.dblclick(*at)
        assert scale_of(page) == pytest.approx(8, rel=1e-3)


def test_zoom_and_one_class_by_keyboard_alone(browser: Browser, samples: Path) -> None:
    labels = np.array(Image.open(samples / "masks/chelsea.png"))
    with opened(browser, samples / "report.html") as page:
        page.keyboard.press("g")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        until(page, "document.querySelector('#viewer-layer').width === 451")
        until(page, "document.querySelector('#viewer-picture').naturalWidth === 451")
        fit = scale_of(page)
        page.keyboard.press("+")
        assert scale_of(page) == pytest.approx(2 * fit, rel=1e-3)
        page.keyboard.press("8")
        assert scale_of(page) == pytest.approx(8, rel=1e-3)
        # The picture follows the probe to its edge.
        page.focus("#viewport")
        page.keyboard.press("ArrowLeft")
        for _ in range(30):
            page.keyboard.press("Shift+ArrowLeft")
        view, probe = page.locator("#viewport").bounding_box(), page.locator("#probe").bounding_box()
        assert view
        assert probe
        assert view["x"] <= probe["x"] < view["x"] + view["width"]
        assert pixel_under(page, probe["x"] + 10, probe["y"] + 10)[0] == 0
        page.keyboard.press("0")
        assert scale_of(page) == pytest.approx(fit, rel=1e-3)
        page.keyboard.press("o")
        assert not page.locator("#viewer-layer").is_visible()
        page.keyboard.press("o")
        # The buttons do the same.
        tab_to(page, "id", "zoom-in")
        page.keyboard.press("Enter")
        assert scale_of(page) == pytest.approx(2 * fit, rel=1e-3)
        page.keyboard.press("0")
        tab_to(page, "dataset.id", "8")
        page.keyboard.press("Enter")
        page.keyboard.press("Shift+Tab")
        alpha = """() => {
            const canvas = document.querySelector('#viewer-layer');
            const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
            return [...data].filter((_, at) => at % 4 === 3);
        }"""
        assert np.array_equal(np.array(page.evaluate(alpha)).reshape(labels.shape) > 0, labels == 8)
        page.keyboard.press("Escape")
        assert focused(page) == "chelsea.png"


def fingers(session: CDPSession, kind: str, *places: tuple[float, float]) -> None:
    touches = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
    session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})


def test_zoom_by_two_fingers_and_pan_by_one(browser: Browser, samples: Path) -> None:
    labels = np.array(Image.open(samples / "masks/chelsea.png"))
    with opened(browser, samples / "report.html", 800, has_touch=True) as page:
        session = page.context.new_cdp_session(page)
        page.tap(".card:nth-child(2) .frame")
        until(page, "document.querySelector('#viewer-layer').width === 451")
        until(page, "document.querySelector('#viewer-picture').naturalWidth === 451")
        fit = scale_of(page)
        box = page.locator("#stage").bounding_box()
        assert box is not None
        x, y = box["x"] + 0.3 * box["width"], box["y"] + 0.5 * box["height"]
        page.touchscreen.tap(x, y)
        column, row = pixel_under(page, x, y)
        assert page.inner_text("#probe-text") == {8: "cat", 0: "__background__"}[int(labels[row, column])]
        fingers(session, "touchStart", (x - 20, y))
        fingers(session, "touchStart", (x - 20, y), (x + 20, y))
        for spread in range(30, 90, 10):
            fingers(session, "touchMove", (x - spread, y), (x + spread, y))
            page.wait_for_timeout(16)
        fingers(session, "touchEnd", (x - 80, y))
        fingers(session, "touchEnd")
        assert scale_of(page) == pytest.approx(4 * fit, rel=0.05)
        assert pixel_under(page, x, y) == pytest.approx((column, row), abs=3)
        held = pixel_under(page, x - 60, y)
        fingers(session, "touchStart", (x - 60, y))
        for way in (10, 20, 30, 40):
            fingers(session, "touchMove", (x - 60 + way, y + way / 4))
            page.wait_for_timeout(16)
        page.wait_for_timeout(100)
        fingers(session, "touchEnd")
        assert pixel_under(page, x - 20, y + 10) == pytest.approx(held, abs=2)
        page.tap("#zoom-fit")
        assert scale_of(page) == pytest.approx(fit, rel=1e-3)
        page.tap("#viewer-on")
        assert not page.locator("#viewer-layer").is_visible()


def test_a_link_shows_the_same_view(browser: Browser, samples: Path) -> None:
    with opened(browser, samples / "report.html") as page:
        page.select_option("#class", "15")
        settled(page, 2)
        page.click(".card:has-text('grace') .frame")
        until(page, "document.querySelector('#viewer-layer').width > 300")
        page.keyboard.press("8")
        page.click("#viewer-classes [data-id='15']")
        until(page, "location.hash.includes('only=15') && location.hash.includes('zoom=')")
        link = page.url
        box = page.locator("#stage").bounding_box()
    with opened(browser, link) as page:
        until(page, "document.querySelector('#viewer-layer').width > 300")
        assert page.inner_text("#viewer-name") == "grace_hopper.jpg"
        assert page.inner_text("#viewer-place") == "2 of 2"
        assert page.locator("#stage").bounding_box() == pytest.approx(box, abs=2)
        assert page.get_attribute("#viewer-classes [data-id='15']", "aria-pressed") == "true"
        page.keyboard.press("Escape")
        until(page, "!location.hash.includes('image=')")
        assert len(settled(page, 2)) == 2
    with opened(browser, link.replace("grace_hopper.jpg", "nobody.jpg")) as page:
        text = "There is no image nobody.jpg in this report."
        until(page, f"document.querySelector('#status').textContent === '{text}'")


def test_over_http(browser: Browser, samples: Path) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=samples)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with opened(browser, f"http://127.0.0.1:{server.server_port}/report.html") as page:
            settled(page, 4)
            assert broken_images(page) == 0
            open_cat(page)
            page.mouse.move(500, 400)
            assert page.inner_text("#probe-text") in {"cat", "__background__"}
        server.shutdown()


@pytest.fixture(scope="module")
def evaluated(samples: Path) -> Path:
    """The report of an evaluation of the sample images' masks, against the same moved by 30 pixels."""
    folder = samples.parent
    (folder / "truth").mkdir()
    for path in (samples / "masks").iterdir():
        truth = np.roll(np.array(Image.open(path)), 30, 1)
        truth[:10] = 255
        Image.fromarray(truth).save(folder / "truth" / path.name)
    run_process("evaluate", SAMPLES, "truth", "--predictions", samples, "--report", "found", "-q", cwd=folder)
    return folder / "found"


def mistaken(samples: Path, evaluated: Path, truth: int, predicted: int) -> dict[str, int]:
    """Return the pixels of each image in a cell of the confusion matrix, where there are any."""
    found = {}
    for row in read_page(evaluated).rows:
        mask = Path(row["name"]).with_suffix(".png")
        a = np.array(Image.open(evaluated.parent / "truth" / mask))
        b = np.array(Image.open(samples / "masks" / mask))
        if pixels := int(((a == truth) & (b == predicted)).sum()):
            found[row["name"]] = pixels
    return found


def test_a_cell_of_the_confusion_matrix_by_keyboard(browser: Browser, samples: Path, evaluated: Path) -> None:
    expected = mistaken(samples, evaluated, 0, 15)
    assert 0 < len(expected) < 4
    with opened(browser, evaluated / "report.html") as page:
        for _ in range(100):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.matches('.cell')"):
                break
        said = set()
        cells = int(page.locator(".cell").count())
        lines = int(page.locator("#matrix tbody tr").count())
        # Each figure is reached by the arrow keys, and said.
        for _ in range(lines):
            page.keyboard.press("Home")
            for _ in range(cells // lines):
                said.add(page.inner_text("#cell-text"))
                page.keyboard.press("ArrowRight")
            page.keyboard.press("ArrowDown")
        assert len(said) == cells
        page.focus(".cell[data-cell='15']")
        text = f"{sum(expected.values()):,} pixels in {len(expected)} image"
        assert text in page.inner_text("#cell-text")
        page.keyboard.press("Enter")
        by_pixels = sorted(expected, key=lambda name: -expected[name] / area_of(evaluated, name))
        assert settled(page, len(expected)) == by_pixels
        assert page.inner_text("#cell-name") == "__background__ taken for person"
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert focused(page) == by_pixels[0]
        until(page, "location.hash.includes('cell=0-15')")
        page.reload()
        assert settled(page, len(expected)) == by_pixels
        page.keyboard.press("x")
        settled(page, 4)
        assert not page.locator("#cell-chip").is_visible()


def area_of(evaluated: Path, name: str) -> int:
    row = read_page(evaluated).row(name)
    return int(row["width"] * row["height"])


def test_a_cell_of_the_confusion_matrix_by_touch(browser: Browser, samples: Path, evaluated: Path) -> None:
    with opened(browser, evaluated / "report.html", 400, has_touch=True) as page:
        page.tap(f".cell[data-cell='{257 * 8}']")
        expected = mistaken(samples, evaluated, 8, 8)
        assert f"{sum(expected.values()):,} pixels" in page.inner_text("#cell-text")
        assert settled(page, len(expected)) == ["chelsea.png"]
        page.tap("#cell-go")
        assert focused(page) == "chelsea.png"
        page.tap("#cell-clear")
        settled(page, 4)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["output", "evaluation"])
def test_axe_finds_nothing(browser: Browser, samples: Path, evaluated: Path, scheme: str, kind: str) -> None:
    axe = pytest.importorskip("axe_playwright_python")
    source = Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    folder = samples if kind == "output" else evaluated
    with opened(browser, folder / "report.html", color_scheme=scheme) as page:
        settled(page, 4)
        for step in ("page", "keys", "large view", "zoomed"):
            if step == "keys":
                page.keyboard.press("?")
            elif step == "large view":
                page.keyboard.press("Escape")
                page.click(".card:has-text('chelsea') .frame")
                until(page, "document.querySelector('#viewer-layer').width > 300")
            elif step == "zoomed":
                page.keyboard.press("8")
            page.evaluate(source)
            found = page.evaluate("axe.run(document, { preload: false }).then((result) => result.violations)")
            told = [
                f"{each['impact']} {each['id']}: {node['html'][:150]} {node['failureSummary']}"
                for each in found
                for node in each["nodes"]
            ]
            assert not told, "\n".join(told)


def test_everything_has_a_name(browser: Browser, samples: Path) -> None:
    unnamed = """() => {
        const all = [...document.querySelectorAll('button, input, select, a, img, canvas, dialog')];
        const labels = ['aria-label', 'aria-labelledby', 'alt'];
        const names = (each) => labels.some((name) => each.getAttribute(name));
        const text = (each) => each.textContent.trim() || each.labels?.length;
        return all.filter((each) => !names(each) && !text(each)).map((each) => each.outerHTML);
    }"""
    with opened(browser, samples / "report.html") as page:
        page.click(".card:nth-child(2) .frame")
        until(page, "document.querySelector('#viewer-layer').getAttribute('aria-label')")
        assert page.evaluate(unnamed) == []
        assert page.locator("h1").count() == 1
        assert page.get_attribute("html", "lang") == "en"


@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_and_wide_light_and_dark(browser: Browser, samples: Path, width: int, scheme: str) -> None:
    # The contrast ratio of WCAG 2.2.
    contrast = """(selector) => {
        const linear = (part) => {
            const x = part / 255;
            return x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
        };
        const luminance = (text) => {
            const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map(linear);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const color = getComputedStyle(document.querySelector(selector)).color;
        const paper = getComputedStyle(document.body).backgroundColor;
        const [light, dark] = [luminance(color), luminance(paper)].sort((a, b) => b - a);
        return (light + 0.05) / (dark + 0.05);
    }"""
    with opened(browser, samples / "report.html", width, color_scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, paper[4:-1].split(","))) > 600) == (scheme == "light")
        for selector in ("h1", ".made", ".tiles dt", ".chips", ".status"):
            assert page.evaluate(contrast, selector) >= 4.5
        page.click(".card .frame")
        until(page, "document.querySelector('#viewer-picture').naturalWidth > 0")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        box = page.locator("#stage").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        zoom = page.locator(".zoom").bounding_box()
        assert zoom is not None
        assert zoom["x"] >= 0
        assert zoom["x"] + zoom["width"] <= width


def test_odd_names_are_harmless(browser: Browser, tmp_path: Path) -> None:
    for number, name in enumerate(ODD):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60 + number, 40), "red").save(path)
    Image.new("RGB", (30, 40), "blue").save(bytes(tmp_path / "photos") + b"/caf\xe9.png")
    (tmp_path / "photos/<b onmouseover=alert(1)>.jpg").write_text("no image")
    run_process("segment", "photos", *SMALL, "-o", "out", "--report", cwd=tmp_path, code=1)
    with opened(browser, tmp_path / "out/report.html") as page:
        assert set(names(page)) == {*ODD, "caf\\xe9.png"}
        assert broken_images(page) == 0
        assert page.locator("[onerror], [onmouseover], .grid b").count() == 0
        for number in range(5):
            page.locator(".card .frame").nth(number).click()
            until(page, "document.querySelector('#viewer-layer').height === 40")
            href = page.get_attribute("#viewer-links a", "href")
            # The link leads to the mask.
            with page.context.expect_page() as opening:
                page.click("#viewer-links a >> nth=0")
            assert opening.value.evaluate("document.querySelector('img').naturalHeight") == 40, href
            opening.value.close()
            page.keyboard.press("Escape")
        assert page.title().startswith("out")


def test_pages_of_3000_images(browser: Browser, many: Path) -> None:
    with opened(browser, many / "report.html") as page:
        assert len(settled(page, 200)) == 200
        assert page.inner_text("#pager-top .range") == "1\N{EN DASH}200 of 3,000"
        loaded: list[str] = []
        page.on("request", lambda request: loaded.append(request.url) if "/images-" in request.url else None)
        page.reload()
        settled(page, 200)
        assert len(loaded) == 1
        page.click("#pager-top [aria-label='Next page']")
        until(page, "document.activeElement.closest('.card')?.dataset.row === '200'")
        page.keyboard.press("p")
        until(page, "document.querySelector('.name').textContent === 'photo000000.jpg'")
        page.click("#pager-bottom [aria-label='Last page']")
        until(page, "document.querySelector('.name').textContent === 'photo002800.jpg'")
        assert len(loaded) == 2
        page.fill("#pager-top input", "7")
        page.keyboard.press("Enter")
        until(page, "document.querySelector('.name').textContent === 'photo001200.jpg'")
        settled(page, 200)
        assert broken_images(page) == 0
        # The large view goes on over the end of the page; closing it shows where it was.
        page.locator(".card .frame").nth(199).click()
        page.keyboard.press("ArrowRight")
        until(page, "document.querySelector('#viewer-name').textContent === 'photo001400.jpg'")
        page.keyboard.press("Escape")
        until(page, "document.activeElement.closest('.card')?.dataset.row === '1400'")
        assert names(page)[0] == "photo001400.jpg"


def test_filter_and_sort_3000_images(browser: Browser, many: Path) -> None:
    with opened(browser, many / "report.html") as page:
        page.select_option("#sort", "class-8")
        until(page, "document.querySelector('.name').textContent === 'photo002999.jpg'")
        assert settled(page, 200) == [f"photo{number:06}.jpg" for number in range(2999, 2799, -1)]
        page.select_option("#class", "8")
        page.eval_on_selector(
            "#least",
            "(each) => { each.value = 90; each.dispatchEvent(new Event('input', {bubbles: true})); }",
        )
        least = -(-3072 * 9 // 10)
        until(page, f"document.querySelector('#status').textContent === '{3000 - least} of 3,000 images'")
        page.click("#direction")
        until(page, f"document.querySelector('.name').textContent === 'photo{least:06}.jpg'")
        assert page.locator("#pager-top .range").inner_text() == f"1\N{EN DASH}200 of {3000 - least}"


def test_100000_images_stay_usable(browser: Browser, tmp_path: Path) -> None:
    records = write_output(tmp_path / "out", 100_000)
    run_process("report", "out", cwd=tmp_path)
    cats = sorted((record["classes"]["8"] for record in records), reverse=True)
    started_at = time.monotonic()
    with opened(browser, tmp_path / "out/report.html") as page:
        settled(page, 200)
        first = time.monotonic() - started_at
        with tasks_of(browser, page) as tasks:
            page.select_option("#sort", "class-8")
            page.wait_for_selector(".value", timeout=60_000)
            settled(page, 200)
            shown = [percent_in(text) for text in page.locator(".value").all_text_contents()]
            assert shown == pytest.approx([pixels / AREA for pixels in cats[:200]], abs=6e-4)
            sorted_after = time.monotonic() - started_at - first
            page.fill("#text", "folder099/")
            until(page, "document.querySelector('#status').textContent === '1,000 of 100,000 images'")
            page.click("#pager-top [aria-label='Last page']")
            until(page, "document.querySelector('#pager-top input')?.value === '5'")
            page.click(".card .frame >> nth=0")
            page.wait_for_selector("#viewer[open]")
        assert page.evaluate("document.querySelectorAll('*').length") < 6000
    # Generous: seconds, on a busy machine, not minutes.
    assert first < 20
    assert sorted_after < 40
    assert 1 < max(tasks) < 50


def test_missing_pictures_are_said(browser: Browser, samples: Path, tmp_path: Path) -> None:
    shutil.copytree(samples, tmp_path / "out")
    report = read_page(tmp_path / "out")
    report.picture(report.rows[0], "small").unlink()
    report.script(report.rows[0]).unlink()
    told = pytest.raises(AssertionError, match="ERR_FILE_NOT_FOUND")
    with told, opened(browser, tmp_path / "out/report.html") as page:
        page.wait_for_selector(".card:nth-child(1) .missing")
        page.click(".card:nth-child(1) .frame")
        page.wait_for_selector("#viewer-notes p:has-text('reload this page')")
        assert page.locator("#viewer").is_visible()


def test_more_failures(browser: Browser, tmp_path: Path) -> None:
    write_output(tmp_path / "out", 1)
    failed: dict[str, Any] = {
        "status": "failed",
        "width": None,
        "height": None,
        "classes": {},
        "outputs": [],
        "output_bytes": [],
    }
    line = json.loads((tmp_path / "out/manifest.jsonl").read_text())
    with (tmp_path / "out/manifest.jsonl").open("a") as journal:
        for number in range(450):
            error = {"kind": "TruncatedImage", "message": f"reason {number}", "limit": None}
            journal.write(
                json.dumps({**line, **failed, "image": f"bad{number:03}.jpg", "error": error}) + "\n"
            )
    run_process("report", "out", cwd=tmp_path)
    with opened(browser, tmp_path / "out/report.html") as page:
        rows = page.locator("#failure-rows tr")
        assert rows.count() == 200
        page.click("#more-failures")
        until(page, "document.querySelectorAll('#failure-rows tr').length === 400")
        assert page.evaluate("document.activeElement.textContent") == "bad200.jpg"
        page.click("#more-failures")
        until(page, "document.querySelectorAll('#failure-rows tr').length === 450")
        assert rows.last.inner_text().split("\t") == ["bad449.jpg", "TruncatedImage", "reason 449"]
        assert not page.locator("#more-failures").is_visible()


def test_an_evaluation(browser: Browser, samples: Path, evaluated: Path) -> None:
    rows = read_page(evaluated).rows
    with opened(browser, evaluated / "report.html") as page:
        assert names(page) == [row["name"] for row in rows]
        assert page.locator(".card:nth-child(1) .tag").all_text_contents() == [
            "Image",
            "Truth",
            "Prediction",
            "Wrong",
        ]
        assert page.locator(".grid img").count() == 4 * (4 + 3)
        assert broken_images(page) == 0
        name = rows[0]["name"]
        predicted = np.array(Image.open(samples / "masks" / Path(name).with_suffix(".png")))
        truth = np.array(Image.open(evaluated.parent / "truth" / Path(name).with_suffix(".png")))
        page.click(".card:nth-child(1) .frame")
        until(page, "document.querySelector('#viewer-layer').width > 300")
        box = page.locator("#stage").bounding_box()
        assert box is not None
        height, width = truth.shape
        classes = {entry["id"]: entry["name"] for entry in read_page(evaluated).data["classes"]}
        wrong = (truth != predicted) & (truth != 255)
        alpha = page.evaluate(
            """() => {
                const canvas = document.querySelector('#viewer-layer');
                const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
                return [...data].filter((_, at) => at % 4 === 3);
            }"""
        )
        assert np.array_equal(np.array(alpha).reshape(truth.shape) > 0, wrong)
        for where in (wrong, (truth == predicted) & (truth != 255), truth == 255):
            places = np.argwhere(where)
            y, x = places[len(places) // 2].tolist()
            page.mouse.move(
                box["x"] + (x + 0.5) * box["width"] / width, box["y"] + (y + 0.5) * box["height"] / height
            )
            true, found = int(truth[y, x]), classes[int(predicted[y, x])]
            expected = f"truth {classes[true]}, predicted {found}" if wrong[y, x] else f"{found}, right"
            if true == 255:
                expected = f"ignored in the ground truth, predicted {found}"
            assert page.inner_text("#probe-text") == expected
        page.keyboard.press("Escape")
        page.select_option("#sort", "accuracy")
        until(page, "document.querySelector('.value').textContent.includes('pixels right')")
        assert names(page) == [row["name"] for row in sorted(rows, key=lambda row: row["accuracy"])]
        page.select_option("#class", "8")
        assert settled(page, 1) == ["chelsea.png"]

"""The time, size and memory of a report per 1,000 images, and how soon a browser shows it."""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from benchmarks import material
from fcn_cli.common import palettes
from fcn_cli.common.class_names import VOC_CLASSES
from fcn_cli.common.label_map import Segmentation
from fcn_cli.inputs import decoder
from fcn_cli.inputs.decode_options import DEFAULT_MAX_PIXELS, DecodeOptions
from fcn_cli.inputs.discovery import InputRequest, discover
from fcn_cli.outputs.directory import OutputDirectory
from fcn_cli.outputs.journal import Journal
from fcn_cli.outputs.looks import Style
from fcn_cli.outputs.output_store import LocalStore
from fcn_cli.outputs.record import begin
from fcn_cli.outputs.settings import LabelSettings, RequestedSettings
from fcn_cli.outputs.write_queue import WriteQueue

_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
_TYPES = ("masks", "color")
# Of the memory of a child, `getrusage` counts what it had before exec too: this process's own.
_REPORT = """
import sys
from fcn_cli.__main__ import run
assert run(["report", sys.argv[1], "-q"]) == 0
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def main() -> None:
    """Print the figures of a report of images, and those of a table of many records without images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--size", type=int, nargs=2, default=(1600, 1200), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(material.machine())
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=_ARGUMENTS)
        print(f"Chromium {browser.version}")
        output = Path(temporary, "out")
        segment(Path(temporary, "photos"), output, options.images, *options.size)
        thousands = options.images / 1000
        first, again = report(output), report(output)
        print(f"{options.images} images of {options.size[0]}x{options.size[1]}, per 1,000 images:")
        print(f"  first report: {first.seconds / thousands:.1f} s, {first.cpu / thousands:.1f} s of CPU")
        print(f"  its size: {first.size / thousands / 1e6:.0f} MB; peak memory {first.peak / 1e6:.0f} MB")
        print(f"a second report, with nothing to make: {again.seconds:.2f} s, {again.cpu:.2f} s of CPU")
        show(browser, output, options.rounds)
        many = Path(temporary, "many")
        repeat_records(output, many, options.records)
        cost = report(many)
        print(f"{options.records} records without images: {cost.seconds:.1f} s, {cost.size / 1e6:.0f} MB")
        print(f"  peak memory {cost.peak / 1e6:.0f} MB")
        show(browser, many, options.rounds)
        browser.close()


def segment(images: Path, output: Path, count: int, width: int, height: int) -> None:
    """Write images, and an output directory in which a network could have found some circles in each."""
    material.make_images(images, count, width, height)
    decoder.prepare_process(DEFAULT_MAX_PIXELS)
    folder = OutputDirectory(output, Style(palettes.hub(), "hub"))
    output.mkdir()
    settings = LabelSettings("resnet50", "00000000", 520, "auto", "auto", None)
    RequestedSettings(settings).save(LocalStore(output), None)
    folder.write_classes(VOC_CLASSES)
    journal = Journal(output)
    with WriteQueue(folder, journal, lambda _record: None, DecodeOptions()) as writes:
        for number, source in enumerate(discover(InputRequest((str(images),))).sources):
            with Image.open(source.path) as image:
                labels = material.circles(number, *image.size)
            writes.add(source, begin(source, settings.fingerprint()), Segmentation(labels), _TYPES)
            writes.commit()
        writes.commit(everything=True)
    journal.close()


def repeat_records(output: Path, many: Path, count: int) -> None:
    """Write an output directory with as many records, whose images and masks are gone."""
    many.mkdir()
    for name in ("settings.json", "classes.json"):
        shutil.copy(output / name, many)
    lines = [json.loads(line) for line in (output / "manifest.jsonl").read_text().splitlines()]
    with (many / "manifest.jsonl").open("w") as journal:
        for number in range(count):
            record = lines[number % len(lines)]
            name = f"folder{number // 1000:04}/photo{number:07}"
            outputs = [f"{kind}/{name}.png" for kind in _TYPES]
            gone = {
                "image": f"{name}.jpg",
                "path": f"/gone/{name}.jpg",
                "outputs": outputs,
                "mtime_ns": number,
            }
            journal.write(json.dumps({**record, **gone}) + "\n")


class Cost(NamedTuple):
    """What a report took: seconds, CPU seconds, and its bytes, and the most memory it had in bytes."""

    seconds: float
    cpu: float
    size: int
    peak: int


def report(output: Path) -> Cost:
    """Run `fcn report`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _REPORT, output], check=True, stdout=subprocess.PIPE, text=True
    )
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    files = [output / "report.html", *(output / "report").rglob("*")]
    size = sum(path.stat().st_size for path in files if path.is_file())
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(seconds, cpu, size, 1024 * int(done.stdout))


def show(browser: Browser, output: Path, rounds: int) -> None:
    """Print the medians of when a browser paints first, has a page of images, and has sorted all of them.

    And the CPU time of the longest task afterwards: sorting, a filter, a page, an image. By the clock, a task
    takes as long as a busy machine lets it wait.
    """
    times: dict[str, list[float]] = {"first paint": [], "200 images in the page": [], "sorted by a class": []}
    tasks = []
    for _ in range(rounds):
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        started = time.perf_counter()
        page.goto((output / "report.html").as_uri())
        page.wait_for_selector(".card:nth-child(200)", state="attached", timeout=120_000)
        times["200 images in the page"].append(time.perf_counter() - started)
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        times["first paint"].append(paint / 1000)
        page.wait_for_timeout(1000)
        browser.start_tracing(page=page, categories=["toplevel"])
        started = time.perf_counter()
        page.select_option("#sort", "class-15")
        page.wait_for_selector(".value", state="attached", timeout=120_000)
        times["sorted by a class"].append(time.perf_counter() - started)
        page.wait_for_selector(".card:nth-child(200)", state="attached", timeout=120_000)
        page.fill("#text", "photo")
        page.wait_for_timeout(2000)
        page.click("#pager-top [aria-label='Next page']")
        page.wait_for_timeout(1000)
        page.click(".card .frame >> nth=0")
        page.wait_for_timeout(1000)
        tasks.append(longest_task(browser.stop_tracing()))
        page.close()
    for name, seconds in times.items():
        print(f"  {name}: {sorted(seconds)[rounds // 2]:.2f} s (median of {rounds})")
    print(f"  longest task after the first page: {', '.join(f'{task:.0f}' for task in tasks)} ms of CPU time")


def longest_task(trace: bytes) -> float:
    """Return the CPU time in ms of the longest task of a page's main thread."""
    events = json.loads(trace)["traceEvents"]
    named = [event for event in events if event["name"] == "thread_name"]
    main = {(e["pid"], e["tid"]) for e in named if e["args"]["name"] == "CrRendererMain"}
    tasks = [e for e in events if "RunTask" in e["name"] and (e["pid"], e["tid"]) in main]
    return max(float(task.get("tdur", 0)) for task in tasks) / 1000


if __name__ == "__main__":
    main()

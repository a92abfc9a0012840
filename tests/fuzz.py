"""Broken and hostile images through the real command: every file must end as ok or as a named error.

`python -m tests.fuzz --help`; it is ``make fuzz``. What does not end well is kept in ``fuzz_findings/``.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

from fcn_cli.common.errors import FailureKind

from .conftest import SAMPLES, command
from .rare_formats import rare_formats

FINDINGS = Path("fuzz_findings")
SECONDS_A_FILE = 20
MAX_PIXELS = 20_000_000
# What one worker may hold: see `decoder.DECODE_BYTES` and `resources.limit_memory`.
WORKER_BYTES = (512 << 20) + 32 * MAX_PIXELS

Encoded = tuple[str, bytes]


def encoded(image: Image.Image, suffix: str, **options: Any) -> Encoded:
    stream = io.BytesIO()
    name = Image.registered_extensions()[suffix]
    image.save(stream, name, **options)
    return suffix, stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """Return a PNG with a chunk more after its header."""
    return png[:33] + chunk(kind, data) + png[33:]


def bases() -> list[Encoded]:
    """Return whole images of every format and pixel type."""
    with Image.open(SAMPLES / "chelsea.png") as opened:
        image = opened.convert("RGB").resize((90, 60))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "described " * 20
    grey16 = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    real = Image.fromarray(np.asarray(image.convert("L")).astype(np.float32) / 7)
    broken_real = np.asarray(real).copy()
    broken_real[::3] = np.nan
    broken_real[1::5] = np.inf
    palette = image.convert("P")
    frames = [image, image.rotate(90), image.rotate(180)]
    made = [
        encoded(image, ".jpg", exif=exif, icc_profile=b"garbage" * 40),
        encoded(image, ".jpg", progressive=True, quality=30),
        encoded(image.convert("CMYK"), ".jpg"),
        encoded(image.convert("L"), ".jpg"),
        encoded(image, ".png"),
        encoded(image.convert("RGBA"), ".png", exif=exif),
        encoded(image.convert("LA"), ".png"),
        encoded(image.convert("1"), ".png"),
        encoded(grey16, ".png"),
        encoded(palette, ".png", transparency=bytes(range(256))),
        encoded(palette, ".png", transparency=3),
        (".png", with_chunk(encoded(image, ".png")[1], b"iCCP", b"icc\0\0" + zlib.compress(b"\0" * 4096))),
        (".png", with_chunk(encoded(image, ".png")[1], b"eXIf", b"II*\0\xff\xff\xff\xff" * 9)),
        (".png", with_chunk(encoded(image, ".png")[1], b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 19)))),
        encoded(frames[0], ".png", save_all=True, append_images=frames[1:], duration=50),
        encoded(palette, ".gif", save_all=True, append_images=[f.convert("P") for f in frames[1:]]),
        encoded(image, ".bmp"),
        encoded(palette, ".bmp"),
        encoded(image, ".ppm"),
        encoded(image.convert("L"), ".pgm"),
        encoded(image.convert("1"), ".pbm"),
        encoded(image, ".tif", compression="tiff_lzw"),
        encoded(image, ".tif", compression="tiff_adobe_deflate", exif=exif),
        encoded(image, ".tif", compression="jpeg"),
        encoded(image.convert("CMYK"), ".tif"),
        encoded(grey16, ".tif"),
        encoded(real, ".tif"),
        encoded(Image.fromarray(broken_real), ".tif"),
        encoded(Image.fromarray(np.asarray(real).astype(np.int32)), ".tif"),
        encoded(image, ".tif", save_all=True, append_images=frames[1:]),
        encoded(image.resize((1, 1)), ".png"),
        encoded(image.resize((1, 20000)), ".png"),
        encoded(image.resize((65500, 1)), ".jpg"),
    ]
    for suffix, feature, options in (
        (".webp", "webp", {}),
        (".webp", "webp", {"lossless": True, "exif": exif}),
        (".webp", "webp", {"save_all": True, "append_images": frames[1:]}),
        (".avif", "avif", {}),
        (".jp2", "jpg_2000", {}),
        (".j2k", "jpg_2000", {"irreversible": True}),
    ):
        if features.check(feature):
            made.append(encoded(image, suffix, **options))
    return made + [(rare.suffix, rare.data) for rare in rare_formats(image)] + heif_bases(frames)


def heif_bases(frames: list[Image.Image]) -> list[Encoded]:
    """Return HEIC images: with alpha, turned, of 10 bits, several in one; none without the extra."""
    if importlib.util.find_spec("pillow_heif") is None:
        return []
    heif = importlib.import_module("pillow_heif")
    exif = Image.Exif()
    exif[0x0112] = 6
    grey16 = Image.fromarray(np.asarray(frames[0].convert("L")).astype(np.uint16) * 257)
    several = heif.from_pillow(frames[0])
    several.add_from_pillow(frames[1])
    files: tuple[tuple[Any, dict[str, Any]], ...] = (
        (heif.from_pillow(frames[0]), {"exif": exif.tobytes()}),
        (heif.from_pillow(frames[0].convert("RGBA")), {"quality": -1, "chroma": 444}),
        (heif.from_pillow(grey16), {}),
        (heif.from_pillow(frames[0].resize((300, 200))), {"tile_size": 64}),
        (several, {"save_all": True}),
    )
    made = []
    for file, options in files:
        stream = io.BytesIO()
        file.save(stream, **options)
        made.append((".heic", stream.getvalue()))
    return made


def truncate(data: bytes, chance: random.Random, _: list[Encoded]) -> bytes:
    return data[: chance.randrange(len(data))]


def flip(data: bytes, chance: random.Random, _: list[Encoded]) -> bytes:
    changed = bytearray(data)
    # Headers are where it hurts: half of the flips go there.
    limit = min(len(data), 128) if chance.random() < 0.5 else len(data)
    for _number in range(chance.choice([1, 2, 8, 64])):
        changed[chance.randrange(limit)] = chance.randrange(256)
    return bytes(changed)


def splice(data: bytes, chance: random.Random, others: list[Encoded]) -> bytes:
    other = chance.choice(others)[1]
    at, start = chance.randrange(len(data)), chance.randrange(len(other))
    return data[:at] + other[start : start + chance.randrange(1, 400)] + data[at + chance.randrange(20) :]


def repeat(data: bytes, chance: random.Random, _: list[Encoded]) -> bytes:
    start = chance.randrange(len(data))
    part = data[start : start + chance.randrange(1, 200)]
    return data[:start] + part * chance.choice([2, 10, 500]) + data[start:]


def lie(data: bytes, chance: random.Random, _: list[Encoded]) -> bytes:
    """Write a huge, a negative or another odd number somewhere in the header."""
    number = chance.choice([0, 1, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF, 70000, 30000])
    packed = struct.pack(chance.choice(["<I", ">I", "<Q"]), number) if chance.random() < 0.6 else None
    packed = packed or struct.pack(chance.choice(["<H", ">H"]), number & 0xFFFF)
    at = chance.randrange(min(len(data), 200))
    return data[:at] + packed + data[at + len(packed) :]


def lie_about_png(data: bytes, chance: random.Random, others: list[Encoded]) -> bytes:
    """Claim another size in a PNG's header, with a right checksum."""
    if data[:4] != b"\x89PNG":
        return lie(data, chance, others)
    sizes = [0, 1, 89, 91, 4000, 60000, 0x7FFFFFFF]
    header = struct.pack(">II", chance.choice(sizes), chance.choice(sizes)) + data[24:29]
    return data[:8] + chunk(b"IHDR", header) + data[33:]


def append_garbage(data: bytes, chance: random.Random, _: list[Encoded]) -> bytes:
    return data + chance.randbytes(chance.randrange(1, 4000))


MUTATIONS: tuple[Callable[[bytes, random.Random, list[Encoded]], bytes], ...] = (
    truncate,
    flip,
    flip,
    splice,
    repeat,
    lie,
    lie_about_png,
    append_garbage,
)


def mutated(made: list[Encoded], chance: random.Random) -> Encoded:
    """Return one of the images with one to three things wrong, and now and then the wrong suffix."""
    suffix, data = chance.choice(made)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        data = chance.choice(MUTATIONS)(data, chance, made) or b"\0"
    if chance.random() < 0.1:
        suffix = chance.choice(made)[0]
    return suffix, data


class Memory(threading.Thread):
    """Watches the largest resident size of any child process of a process, in bytes."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.most = 0

    def run(self) -> None:
        while Path(f"/proc/{self.pid}").exists():
            children = []
            for task in Path(f"/proc/{self.pid}/task").glob("*/children"):
                try:
                    children += task.read_text().split()
                except OSError:
                    continue
            for child in children:
                try:
                    lines = Path(f"/proc/{child}/status").read_text().splitlines()
                except OSError:
                    continue
                grown = [int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")]
                self.most = max([self.most, *grown])
            time.sleep(0.02)


def main() -> None:
    """Mutate, segment, and account for every file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = folder / "photos"
        images.mkdir()
        chance = random.Random(options.seed)
        made = bases()
        for number, (suffix, data) in enumerate(made):
            (images / f"whole{number:03}{suffix}").write_bytes(data)
        for number in range(options.count):
            suffix, data = mutated(made, chance)
            (images / f"{number:06}{suffix}").write_bytes(data)
        findings = check(folder, len(made) + options.count)
    sys.exit(bool(findings))


def check(folder: Path, count: int) -> list[str]:
    """Segment what is in ``photos``, print what came of it, keep and return what should not have."""
    line = command(
        *("segment", "photos", "--backbone", "efficientnet_lite0", "--resize", "32", "--keep-extension"),
        *("--decode-timeout", str(SECONDS_A_FILE), "--max-image-pixels", str(MAX_PIXELS)),
        *("--write", "masks", "-q"),
    )
    started = time.monotonic()
    with (folder / "stderr.txt").open("wb") as errors:
        running = subprocess.Popen(line, cwd=folder, stderr=errors, env=environment())
        memory = Memory(running.pid)
        memory.start()
        code = running.wait()
    stderr = (folder / "stderr.txt").read_text(errors="replace")
    journal = (folder / "fcn_output/manifest.jsonl").read_text().splitlines()
    records = {record["image"]: record for record in map(json.loads, journal)}
    kinds = Counter(record["error"]["kind"] if record["error"] else "ok" for record in records.values())
    findings = [
        name
        for name, record in records.items()
        if (record["error"] or {}).get("kind") in {FailureKind.DECODER_DIED, FailureKind.DECODER_HUNG}
        or record["seconds"] > SECONDS_A_FILE
        or (name.startswith("whole") and record["error"])
    ]
    for kind, number in kinds.most_common():
        print(f"{number:6} {kind}")
    print(
        f"{len(records)} of {count} files accounted for, exit code {code}, {time.monotonic() - started:.0f} s"
    )
    most, bound = memory.most / 1e6, WORKER_BYTES / 1e6
    print(f"largest decoding worker: {most:.0f} MB; allowed are {bound:.0f} MB beyond what it starts with")
    if len(records) != count or code not in {0, 1} or "Traceback" in stderr:
        findings.append(f"the run itself: exit code {code}\n{stderr[-2000:]}")
    for name in findings:
        print(f"finding: {name} {(records.get(name) or {}).get('error')}")
        if name in records:
            FINDINGS.mkdir(exist_ok=True)
            shutil.copy(folder / "photos" / name, FINDINGS / name)
    return findings


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}


if __name__ == "__main__":
    main()

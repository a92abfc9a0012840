"""Render contact_sheet.jpg, the README's picture, from what ``make demo`` wrote."""

from __future__ import annotations

import csv
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).parent
IMAGES = HERE.parent / "sample_images"
DEMO = HERE.parent / "demo_output"
HEIGHT, GAP, CAPTION = 220, 8, 22


def main() -> None:
    """Put each image above its colour map and overlay, with its largest class's name."""
    columns = [
        (f"{image}: {name} {fraction:.0%}", _panels(image))
        for image, (fraction, name) in sorted(_largest_classes().items())
    ]
    width = sum(panels[0].width + GAP for _, panels in columns) + GAP
    sheet = Image.new("RGB", (width, CAPTION + 3 * (HEIGHT + GAP) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    left = GAP
    for caption, panels in columns:
        draw.text((left, 5), caption, fill="black", font=ImageFont.load_default(13))
        for row, panel in enumerate(panels):
            sheet.paste(panel, (left, CAPTION + GAP + row * (HEIGHT + GAP)))
        left += panels[0].width + GAP
    sheet.save(HERE / "contact_sheet.jpg", quality=88)


def _largest_classes() -> dict[str, tuple[float, str]]:
    """Return for each image the share and the name of its largest class but background."""
    largest: dict[str, tuple[float, str]] = {}
    with (DEMO / "stats.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["class_id"] != "0":
                share = (float(row["fraction"]), row["class_name"])
                largest[row["image"]] = max(largest.get(row["image"], share), share)
    return largest


def _panels(image: str) -> list[Image.Image]:
    """Return the image, its colour map and its overlay, all of one height."""
    stem = Path(image).stem
    paths = [IMAGES / image, DEMO / "color" / f"{stem}.png", DEMO / "overlay" / f"{stem}.jpg"]
    opened = [Image.open(path).convert("RGB") for path in paths]
    return [panel.resize((round(panel.width * HEIGHT / panel.height), HEIGHT)) for panel in opened]


if __name__ == "__main__":
    main()

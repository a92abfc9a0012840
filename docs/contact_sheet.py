"""Render contact_sheet.jpg, the README's picture, from what ``make demo`` wrote."""

from __future__ import annotations

import csv
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).parent
PHOTOS = HERE.parent / "sample_images"
DEMO = HERE.parent / "demo_output"
HEIGHT, GAP, CAPTION = 220, 8, 22


def main() -> None:
    """Put each photo above its colour map and overlay, with its largest class's name."""
    largest: dict[str, tuple[float, str]] = {}
    with (DEMO / "stats.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["class_id"] != "0":
                share = (float(row["fraction"]), row["class_name"])
                largest[row["image"]] = max(largest.get(row["image"], share), share)
    columns = []
    for image, (fraction, name) in sorted(largest.items()):
        stem = Path(image).stem
        tiles = [PHOTOS / image, DEMO / "color" / f"{stem}.png", DEMO / "overlay" / f"{stem}.jpg"]
        opened = [Image.open(tile).convert("RGB") for tile in tiles]
        scaled = [one.resize((round(one.width * HEIGHT / one.height), HEIGHT)) for one in opened]
        columns.append((f"{image}: {name} {fraction:.0%}", scaled))
    width = sum(tiles[0].width + GAP for _, tiles in columns) + GAP
    sheet = Image.new("RGB", (width, CAPTION + 3 * (HEIGHT + GAP) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    left = GAP
    for caption, tiles in columns:
        draw.text((left, 5), caption, fill="black", font=ImageFont.load_default(13))
        for row, tile in enumerate(tiles):
            sheet.paste(tile, (left, CAPTION + GAP + row * (HEIGHT + GAP)))
        left += tiles[0].width + GAP
    sheet.save(HERE / "contact_sheet.jpg", quality=88)


if __name__ == "__main__":
    main()

"""Tables for people: the summary of a run on stderr, the figures of other commands on stdout."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ..common.class_names import class_name
from ..common.wording import counted
from .console import one_line, write_line
from .text_table import Color, write_table

if TYPE_CHECKING:
    from ..runs.report import Summary


_SHOWN_NAMES = 5


def run(summary: Summary) -> None:
    """Print the classes that a run found, on stderr."""
    totals = summary.totals
    rows: list[tuple[str, ...]] = []
    swatches: list[Color] = []
    shares: list[float] = []
    for index, pixels in totals.class_pixels.most_common():
        red, green, blue = summary.palette[index].tolist() if summary.palette is not None else (0, 0, 0)
        swatches.append((red, green, blue))
        shares.append(pixels / totals.pixels)
        rows.append(
            (
                one_line(class_name(summary.class_names, index)),
                f"{totals.class_images[index]:,}",
                f"{pixels:,}",
                f"{pixels / totals.pixels:.1%}",
            )
        )
    write_table(("class", "images", "pixels", "share"), rows, sys.stderr, swatches, shares)


def _print_line(text: str) -> None:
    write_line(text, sys.stdout)


def bench(figures: dict[str, Any]) -> None:
    """Print the figures of a benchmark."""
    _print_line(
        f"{figures['backbone']}, {figures['width']}x{figures['height']}, batches of {figures['batch_size']}, "
        f"{figures['device']} {figures['precision']}, {figures['kernels']} kernels, "
        f"{counted(figures['threads'], 'thread')}; median of {counted(figures['rounds'], 'round')} in turn"
    )
    _print_line(f"{figures['machine']}, torch {figures['torch']}")
    rows = [
        (
            name,
            contender["precision"],
            f"{contender['images_per_second']:.3f}",
            f"{1 / contender['images_per_second']:.3f}",
            f"{contender['ratio_to_torchvision']:.2f}",
            f"{contender['ratio_to_direct_limit']:.2f}",
        )
        for name, contender in figures["contenders"].items()
    ]
    write_table(
        ("", "precision", "images/s", "s/image", "of torchvision", "of direct limit"), rows, sys.stdout
    )
    _print_line(
        f"direct limit: {_three_digits(figures['gflop_per_image'])} GFLOP per image "
        f"({_three_digits(figures['gflop_per_image_with_auxiliary_head'])} with the auxiliary head) at the "
        f"{figures['gemm_gflop_per_second']:.0f} GFLOP/s of the fastest matrix product"
    )


def tile_bench(figures: dict[str, Any]) -> None:
    """Print what a megapixel costs in tiles."""
    per_megapixel = figures["seconds_per_megapixel"]
    alone = figures["seconds_per_megapixel_of_a_tile_alone"]
    _print_line(
        f"{figures['backbone']}, {figures['width']}x{figures['height']} in "
        f"{counted(figures['tiles'], 'tile')} of {figures['tile_width']}x{figures['tile_height']} that "
        f"overlap by {figures['overlap']} pixels, batches of {figures['batch_size']}, {figures['device']} "
        f"{figures['precision']}, {figures['kernels']} kernels, {counted(figures['threads'], 'thread')}; "
        f"median of {counted(figures['rounds'], 'round')} in turn"
    )
    _print_line(f"{figures['machine']}, torch {figures['torch']}")
    _print_line(
        f"{per_megapixel:.3f} s per megapixel, {per_megapixel / alone:.2f} times that of a tile alone "
        f"({alone:.3f} s); 12 megapixels take about {12 * per_megapixel:.0f} s"
    )


def evaluation(figures: dict[str, Any]) -> None:
    """Print IoU and accuracy by class, the means, notes and the protocol."""
    rows = [
        (
            one_line(entry["name"]),
            _percent(entry["iou"]),
            _percent(entry["accuracy"]),
            f"{entry['truth_pixels']:,}",
            f"{entry['predicted_pixels']:,}",
            f"{entry['truth_images']:,}",
        )
        for entry in figures["classes"].values()
        if entry["iou"] is not None
    ]
    write_table(("class", "IoU", "accuracy", "true pixels", "predicted", "images"), rows, sys.stdout)
    absent = len(figures["classes_absent"])
    counted_classes = counted(figures["classes_in_mean"], "class", "classes")
    _print_line(
        f"mean IoU {_percent(figures['mean_iou'])} over {counted_classes}"
        + (
            f" ({absent} in neither truth nor prediction {'is' if absent == 1 else 'are'} left out)"
            if absent
            else ""
        )
        + f", pixel accuracy {_percent(figures['pixel_accuracy'])}, "
        f"mean accuracy {_percent(figures['mean_accuracy'])}"
    )
    _print_line(
        f"{figures['images']} of {counted(figures['images_given'], 'image')}; "
        f"{figures['images_without_truth']} without truth, {figures['images_failed']} failed; "
        f"{figures['truth_without_image']} true label maps without an image; "
        f"{figures['void_fraction']:.2%} of the truth's pixels are void"
    )
    for line in _photo_notes(figures) + _truth_notes(figures):
        _print_line(line)
    protocol = figures["protocol"]
    _print_line(
        f"protocol {protocol['name']}: {protocol['compared']}; truth: {protocol['truth']}; {protocol['void']}"
    )


def _photo_notes(figures: dict[str, Any]) -> list[str]:
    """Return the notes on the photos of an evaluation; empty without any."""
    lines = []
    turned = figures["orientation"]
    if turned["images_turned"]:
        line = (
            f"EXIF turns {turned['images_turned']} of the images: "
            f"{turned['taken_upright']} compared upright, {turned['taken_as_stored']} as stored "
            f"(--orientation {turned['asked']})"
        )
        if turned["fit_both_ways"]:
            line += f"; {turned['fit_both_ways']} fit the truth in both orientations"
        lines.append(line)
    if figures["images_fed_smaller"]:
        lines.append(
            f"{figures['images_fed_smaller']} long and thin, with a smaller network input than the others"
        )
    lines += [
        f"note on {counted(number, 'image')}: {one_line(note)}"
        for note, number in figures["notes_by_kind"].items()
    ]
    return lines


def _truth_notes(figures: dict[str, Any]) -> list[str]:
    """Return the notes on the truth of an evaluation, without which its figures may be misread."""
    lines = []
    true = [entry["name"] for entry in figures["classes"].values() if entry["truth_pixels"]]
    if len(true) == 1 and figures["void_fraction"]:
        lines.append(f"the truth has no class except {one_line(true[0])}")
    if counts := figures["truth_counts"]:
        lines.append(
            f"annotations: {counts['annotations_used']} used, "
            f"{counts['annotations_of_other_categories']} of other categories (background), "
            f"{counts['annotations_of_unknown_images']} of images that the file does not list"
        )
        if missing := counts["categories_missing"]:
            ellipsis = ", …" if len(missing) > _SHOWN_NAMES else ""
            shown = ", ".join(missing[:_SHOWN_NAMES])
            lines.append(f"the truth lacks {len(missing)} of Pascal VOC's 20 categories: {shown}{ellipsis}")
    return lines


def comparison(figures: dict[str, Any]) -> None:
    """Print the figures of a comparison."""
    for name, (in_a, in_b) in figures["settings"].items():
        _print_line(f"{name}: {one_line(str(in_a))} in A, {one_line(str(in_b))} in B")
    rows = [
        (one_line(entry["name"]), _percent(entry["iou"]), f"{entry['pixels_a']:,}", f"{entry['pixels_b']:,}")
        for entry in figures["classes"].values()
    ]
    write_table(("class", "IoU", "pixels in A", "pixels in B"), rows, sys.stdout)
    for entry in figures["most_different"]:
        pixels = counted(entry["pixels"], "pixel", grouped=True)
        differ = "differs" if entry["pixels"] == 1 else "differ"
        _print_line(f"{one_line(entry['image'])}: {pixels} {differ} ({entry['fraction']:.3%})")
    _print_line(
        f"{counted(figures['images'], 'image')}, {figures['images_identical']} identical, "
        f"{figures['images_failed']} failed; "
        f"{figures['only_in_a']} only in A, {figures['only_in_b']} only in B"
    )
    equal = figures["pixels_equal"]
    _print_line(
        f"pixels equal {'none' if equal is None else format(equal, '.4%')}, "
        f"mean IoU of A against B {_percent(figures['mean_iou'])}"
    )


def _percent(fraction: float | None) -> str:
    return "none" if fraction is None else f"{fraction:.2%}"


def _three_digits(number: float) -> str:
    """Return a number without decimals, or with three significant digits where it is small."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"

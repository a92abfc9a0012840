"""What people read at the end: a run's figures on stderr, what was asked for on stdout."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ..common.class_names import class_name
from ..common.wording import counted
from .console import one_line, write_line
from .text_table import Color, write_table

if TYPE_CHECKING:
    from ..runs.summary import Summary


_SHOWN_NAMES = 5


def run(summary: Summary) -> None:
    """Print the classes that a run found."""
    totals = summary.totals
    rows: list[tuple[str, ...]] = []
    swatches: list[Color] = []
    for index, pixels in totals.class_pixels.most_common():
        red, green, blue = summary.palette[index].tolist() if summary.palette is not None else (0, 0, 0)
        swatches.append((red, green, blue))
        rows.append(
            (
                one_line(class_name(summary.class_names, index)),
                f"{totals.class_images[index]:,}",
                f"{pixels:,}",
                f"{pixels / totals.pixels:.1%}",
            )
        )
    write_table(("class", "images", "pixels", "share"), rows, sys.stderr, swatches)


def _say(text: str) -> None:
    write_line(text, sys.stdout)


def bench(figures: dict[str, Any]) -> None:
    """Print what a benchmark found, on stdout: it is what was asked for."""
    _say(
        f"{figures['backbone']}, {figures['width']}x{figures['height']}, batches of {figures['batch_size']}, "
        f"{figures['device']} {figures['precision']}, {figures['kernels']} kernels, "
        f"{counted(figures['threads'], 'thread')}; median of {counted(figures['rounds'], 'round')} in turn"
    )
    _say(f"{figures['machine']}, torch {figures['torch']}")
    rows = [
        (
            name,
            f"{one['images_per_second']:.3f}",
            f"{1 / one['images_per_second']:.3f}",
            f"{one['ratio_to_torchvision']:.2f}",
            f"{one['ratio_to_direct_limit']:.2f}",
        )
        for name, one in figures["contenders"].items()
    ]
    write_table(("", "images/s", "s an image", "of torchvision", "of direct limit"), rows, sys.stdout)
    _say(
        f"direct limit: {figures['gflop_per_image']:.0f} GFLOP an image "
        f"({figures['gflop_per_image_with_auxiliary_head']:.0f} with the auxiliary head) at the "
        f"{figures['gemm_gflop_per_second']:.0f} GFLOP/s of the best matrix product"
    )


def evaluation(figures: dict[str, Any]) -> None:
    """Print IoU and accuracy by class, and by which protocol they were found."""
    rows = [
        (
            one_line(one["name"]),
            _percent(one["iou"]),
            _percent(one["accuracy"]),
            f"{one['truth_pixels']:,}",
            f"{one['predicted_pixels']:,}",
            f"{one['truth_images']:,}",
        )
        for one in figures["classes"].values()
        if one["iou"] is not None
    ]
    write_table(("class", "IoU", "accuracy", "true pixels", "predicted", "images"), rows, sys.stdout)
    absent = len(figures["classes_absent"])
    counted_classes = counted(figures["classes_in_mean"], "class", "classes")
    _say(
        f"mean IoU {_percent(figures['mean_iou'])} over {counted_classes}"
        + (
            f" ({absent} that neither truth nor prediction has {'is' if absent == 1 else 'are'} left out)"
            if absent
            else ""
        )
        + f", pixel accuracy {_percent(figures['pixel_accuracy'])}, "
        f"mean accuracy {_percent(figures['mean_accuracy'])}"
    )
    _say(
        f"{figures['images']} of {counted(figures['images_given'], 'image')}; "
        f"{figures['images_without_truth']} without truth, {figures['images_failed']} failed; "
        f"{figures['truth_without_image']} of the truth without an image; "
        f"{figures['void_fraction']:.2%} of the truth's pixels void"
    )
    for line in _about_photos(figures) + _about_truth(figures):
        _say(line)
    protocol = figures["protocol"]
    _say(
        f"protocol {protocol['name']}: {protocol['compared']}; truth: {protocol['truth']}; {protocol['void']}"
    )


def _about_photos(figures: dict[str, Any]) -> list[str]:
    """Say what an evaluation noticed about the photos, nothing where there was nothing."""
    lines = []
    turned = figures["orientation"]
    if turned["images_turned"]:
        line = (
            f"EXIF turns {turned['images_turned']} of the images: {turned['taken_upright']} taken upright, "
            f"{turned['taken_as_stored']} as stored (--orientation {turned['asked']})"
        )
        if turned["fit_both_ways"]:
            line += f"; {turned['fit_both_ways']} fit the truth both ways"
        lines.append(line)
    if figures["images_fed_smaller"]:
        lines.append(
            f"{figures['images_fed_smaller']} fed to the network smaller than the others: long and thin"
        )
    lines += [f"noted of {number}: {one_line(note)}" for note, number in figures["notes_by_kind"].items()]
    return lines


def _about_truth(figures: dict[str, Any]) -> list[str]:
    """Say what else people should know of the truth, so that they do not misread the figures."""
    lines = []
    true = [one["name"] for one in figures["classes"].values() if one["truth_pixels"]]
    if len(true) == 1 and figures["void_fraction"]:
        lines.append(f"the truth has no class but {one_line(true[0])}")
    if counts := figures["truth_counts"]:
        lines.append(
            f"annotations: {counts['annotations_used']} used, "
            f"{counts['annotations_of_other_categories']} of other categories (background), "
            f"{counts['annotations_of_unknown_images']} of images that are not in the file"
        )
        if missing := counts["categories_missing"]:
            more = ", …" if len(missing) > _SHOWN_NAMES else ""
            shown = ", ".join(missing[:_SHOWN_NAMES])
            lines.append(f"of Pascal VOC's 20 categories the truth lacks {len(missing)}: {shown}{more}")
    return lines


def comparison(figures: dict[str, Any]) -> None:
    """Print how two folders of label maps agree."""
    for name, (in_a, in_b) in figures["settings"].items():
        _say(f"{name}: {one_line(str(in_a))} in A, {one_line(str(in_b))} in B")
    rows = [
        (one_line(one["name"]), _percent(one["iou"]), f"{one['pixels_a']:,}", f"{one['pixels_b']:,}")
        for one in figures["classes"].values()
    ]
    write_table(("class", "IoU", "pixels in A", "pixels in B"), rows, sys.stdout)
    for one in figures["most_different"]:
        pixels = counted(one["pixels"], "pixel", grouped=True)
        differ = "differs" if one["pixels"] == 1 else "differ"
        _say(f"{one_line(one['image'])}: {pixels} {differ} ({one['fraction']:.3%})")
    _say(
        f"{counted(figures['images'], 'image')}, {figures['images_identical']} identical, "
        f"{figures['images_failed']} failed; "
        f"{figures['only_in_a']} only in A, {figures['only_in_b']} only in B"
    )
    equal = figures["pixels_equal"]
    _say(
        f"pixels equal {'none' if equal is None else format(equal, '.4%')}, "
        f"mean IoU of A against B {_percent(figures['mean_iou'])}"
    )


def _percent(fraction: float | None) -> str:
    return "none" if fraction is None else f"{fraction:.2%}"

"""Measure how well people tell the colours of a palette apart, and design the palette ``bright``.

``python -m benchmarks.palettes`` prints the figures of every built-in palette; with ``--design 400`` it
searches the colours of ``bright`` and prints them (a minute; the search has a fixed seed).

The figures are the smallest CIEDE2000 difference between two of the first 21, 64 or 255 colours, as most
people see them and as people with protanopia, deuteranopia or tritanopia do; and the smallest between a
black, a grey and a white image and the same with a colour over it at half opacity.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fcn_cli.common import palettes
from fcn_cli.common.class_names import VOC_CLASSES
from fcn_cli.common.label_map import VOID_INDEX

Array = NDArray[np.float64]

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency"
# (IEEE TVCG 2009), the matrices of severity 1.0; they apply to linear RGB.
VISIONS: Mapping[str, Array] = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}

# IEC 61966-2-1: linear sRGB to XYZ, and its white (D65).
_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = _TO_XYZ.sum(1)
_VOC_COUNT = len(VOC_CLASSES)

# The search: it takes colours from this lattice of RGB values, which must be at least so visible.
_LATTICE = np.arange(0, 256, 17)
_LIGHTNESS = (38.0, 93.0)
_ON_GREYS = {"black": 24.0, "grey": 13.0, "white": 14.0}
# Most people's vision separates more colours: there the distances shall be larger by this factor.
_NORMAL_FACTOR = 1.7
_SEED = 21
# Classes that one image often has together, "person" beside each of them.
_SCENES = (
    "bird cat cow dog horse sheep",
    "aeroplane bicycle boat bus car motorbike train",
    "bottle chair diningtable pottedplant sofa tvmonitor",
)
# Colours of skin, fur and dark clothes, on which the colours of people and animals must show.
_SKIN_AND_FUR = [(224, 172, 150), (200, 170, 130), (140, 100, 70), (90, 60, 40), (25, 25, 45)]
GREYS = {"black": (0, 0, 0), "grey": (127, 127, 127), "white": (255, 255, 255)}
"""Colours of the images on which the colours must show."""


def linear(colors: NDArray[np.generic]) -> Array:
    """Return linear RGB (0 to 1) of sRGB colours (0 to 255), both of shape (…, 3)."""
    values = np.asarray(colors, dtype=np.float64) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(colors: NDArray[np.generic], vision: str = "normal") -> Array:
    """Return CIE L*a*b* (D65) of sRGB colours as a kind of vision sees them, both of shape (…, 3)."""
    seen = np.clip(linear(colors) @ VISIONS[vision].T, 0, 1)
    ratio = seen @ _TO_XYZ.T / _WHITE
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1
    )


def ciede2000(first: Array, second: Array) -> Array:
    """Return the CIEDE2000 difference of L*a*b* colours, whose shapes broadcast.

    The formula and its names are from Sharma, Wu and Dalal, "The CIEDE2000 Color-Difference Formula:
    Implementation Notes, Supplementary Test Data, and Mathematical Observations" (2005).
    """
    l1, a1, b1 = np.moveaxis(first, -1, 0)
    l2, a2, b2 = np.moveaxis(second, -1, 0)
    mean_c = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    g = 0.5 * (1 - np.sqrt(mean_c**7 / (mean_c**7 + 25.0**7)))
    a1, a2 = a1 * (1 + g), a2 * (1 + g)
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = np.degrees(np.arctan2(b1, a1)) % 360, np.degrees(np.arctan2(b2, a2)) % 360
    grey = c1 * c2 == 0
    apart = np.abs(h1 - h2) > 180
    dh = np.where(grey, 0, h2 - h1)
    dh = np.where(~grey & apart, dh - 360 * np.sign(dh), dh)
    d_h = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(dh / 2))
    mean_h = np.where(apart, (h1 + h2 + np.where(h1 + h2 < 360, 360, -360)) / 2, (h1 + h2) / 2)
    mean_h = np.where(grey, h1 + h2, mean_h)
    mean_l, mean_c = (l1 + l2) / 2, (c1 + c2) / 2
    t = (
        1
        - 0.17 * np.cos(np.radians(mean_h - 30))
        + 0.24 * np.cos(np.radians(2 * mean_h))
        + 0.32 * np.cos(np.radians(3 * mean_h + 6))
        - 0.20 * np.cos(np.radians(4 * mean_h - 63))
    )
    s_l = 1 + 0.015 * (mean_l - 50) ** 2 / np.sqrt(20 + (mean_l - 50) ** 2)
    s_c, s_h = 1 + 0.045 * mean_c, 1 + 0.015 * mean_c * t
    turn = 30 * np.exp(-(((mean_h - 275) / 25) ** 2))
    r_t = -2 * np.sqrt(mean_c**7 / (mean_c**7 + 25.0**7)) * np.sin(np.radians(2 * turn))
    lightness, chroma, hue = (l2 - l1) / s_l, (c2 - c1) / s_c, d_h / s_h
    difference: Array = np.sqrt(lightness**2 + chroma**2 + hue**2 + r_t * chroma * hue)
    return difference


def nearest(colors: NDArray[np.generic], vision: str) -> float:
    """Return the smallest difference between two of some colours, shape (n, 3)."""
    seen = lab(colors, vision)
    differences = ciede2000(seen[:, None], seen[None])
    return float(differences[np.triu_indices(len(colors), 1)].min())


def on_images(colors: NDArray[np.generic], images: Sequence[Sequence[int]]) -> Array:
    """Return how much each colour, at half opacity, changes images of one colour each, at least; shape (n,).

    `images` are the images' colours.
    """
    plain = np.array(images, dtype=np.float64)[:, None]
    blended = (plain + np.asarray(colors, dtype=np.float64)) / 2
    worst: Array = ciede2000(lab(blended), lab(plain)).min(0)
    return worst


def figures(palette: palettes.Palette, count: int = _VOC_COUNT) -> dict[str, float]:
    """Return the figures of a palette's first colours: nearest two per vision, and worst on images."""
    colors = palette[:count]
    distances = {vision: nearest(colors, vision) for vision in VISIONS}
    shown = {f"on {name}": float(on_images(colors[1:], [grey]).min()) for name, grey in GREYS.items()}
    return {**distances, **shown}


def design(rounds: int) -> palettes.Palette:
    """Search colours for ``bright``: black, 20 for Pascal VOC's classes, the rest; light grey for void.

    The 20 are those whose nearest two are farthest apart in the worst of `VISIONS`, black and void included
    (a local search with restarts). Of the rest, each is the one farthest from all before it.
    """
    generator = np.random.default_rng(_SEED)
    fixed = np.array([[0, 0, 0], palettes.BRIGHT_VOID])
    colors = np.concatenate([fixed, _candidates()])
    apart = _differences(colors)
    chosen = _spread(apart, _VOC_COUNT - 1, generator, rounds)
    places = _assigned(apart[np.ix_(chosen, chosen)], on_images(colors[chosen], _SKIN_AND_FUR), generator)
    chosen = [chosen[place] for place in places]
    order = [0, *chosen]
    near = apart[[1, *order]].min(0)
    while len(order) < VOID_INDEX:
        order.append(int(near.argmax()))
        near = np.minimum(near, apart[order[-1]])
    palette: palettes.Palette = colors[[*order, 1]].astype(np.uint8)
    return palette


def _candidates() -> NDArray[np.int64]:
    """Return the colours to choose from: neither too dark nor too light, and visible on images."""
    colors = np.stack(np.meshgrid(_LATTICE, _LATTICE, _LATTICE, indexing="ij"), axis=-1).reshape(-1, 3)
    lightness = lab(colors)[:, 0]
    usable = (_LIGHTNESS[0] < lightness) & (lightness < _LIGHTNESS[1])
    for name, least in _ON_GREYS.items():
        usable &= on_images(colors, [GREYS[name]]) > least
    return colors[usable]


def _differences(colors: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the difference of each two colours in the worst vision, float32 of shape (n, n)."""
    worst = np.full((len(colors), len(colors)), np.inf, dtype=np.float32)
    for vision in VISIONS:
        seen = lab(colors, vision)
        factor = _NORMAL_FACTOR if vision == "normal" else 1.0
        for row, color in enumerate(seen):
            np.minimum(worst[row], ciede2000(color, seen) / factor, out=worst[row])
    return worst


def _spread(apart: NDArray[np.float32], count: int, generator: np.random.Generator, rounds: int) -> list[int]:
    """Return the colours whose smallest difference, also to the first two, is the largest that was found."""
    fixed = [0, 1]
    best: tuple[float, list[int]] = (0.0, [])
    for _ in range(rounds):
        chosen: list[int] = []
        for _ in range(count):
            near = apart[fixed + chosen].min(0)
            chosen.append(int(generator.choice(np.argpartition(near, -6)[-6:])))
        reached, fruitless = 0.0, 0
        while fruitless < 60:
            everything = np.array(fixed + chosen)
            between = apart[np.ix_(everything, everything)]
            np.fill_diagonal(between, np.inf)
            smallest = float(between.min())
            best = max(best, (smallest, list(chosen)))
            fruitless = 0 if smallest > reached else fruitless + 1
            reached = max(reached, smallest)
            # Replace one of the nearest two by a colour far from all others.
            pair = [int(place) - 2 for place in np.unravel_index(between.argmin(), between.shape)]
            place = int(generator.choice([place for place in pair if place >= 0]))
            others = fixed + chosen[:place] + chosen[place + 1 :]
            near = apart[others].min(0)
            far = np.argpartition(near, -4)[-4:]
            take_best = generator.random() < 0.6
            chosen[place] = int(far[near[far].argmax()] if take_best else generator.choice(far))
    return best[1]


def _assigned(between: NDArray[np.float32], on_fur: Array, generator: np.random.Generator) -> list[int]:
    """Return which colour each class but background gets.

    Classes of one scene shall differ most, and people and animals differ from skin and fur.
    """
    living = np.array([name in f"person {_SCENES[0]}".split() for name in VOC_CLASSES[1:]])
    weight = np.ones((_VOC_COUNT, _VOC_COUNT))
    for scene in _SCENES:
        places = [VOC_CLASSES.index(name) for name in ("person", *scene.split())]
        weight[np.ix_(places, places)] = 10
    weight = weight[1:, 1:]

    def cost(order: NDArray[np.int64]) -> float:
        on_image = float(np.exp(-on_fur[order][living] / 5).sum())
        return 5 * on_image + float(
            (weight * np.exp(-between[np.ix_(order, order)] / 5))[np.triu_indices(len(order), 1)].sum()
        )

    best = np.arange(len(between))
    for _ in range(40):
        order = generator.permutation(len(between))
        changed = True
        while changed:
            changed = False
            for first in range(len(order)):
                for second in range(first):
                    other = order.copy()
                    other[[first, second]] = other[[second, first]]
                    if cost(other) < cost(order) - 1e-9:
                        order, changed = other, True
        if cost(order) < cost(best):
            best = order
    return [int(place) for place in best]


def _print_figures(name: str, palette: palettes.Palette) -> None:
    for count in (_VOC_COUNT, 64, VOID_INDEX):
        cells = " ".join(f"{figure:12.2f}" for figure in figures(palette, count).values())
        print(f"{name:8} {count:7} {cells}")


def main() -> None:
    """Print the figures of the palettes, or search ``bright`` again."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--design", type=int, metavar="ROUNDS", help="search bright anew: 400 made the one there is"
    )
    options = parser.parse_args()
    print(f"{'palette':8} classes {' '.join(f'{name:>12}' for name in figures(palettes.hub()))}")
    for name, make in palettes.BUILT_IN.items():
        _print_figures(name, make())
    if options.design:
        palette = design(options.design)
        _print_figures("designed", palette)
        text = palette[:VOID_INDEX].tobytes().hex()
        for start in range(0, len(text), 96):
            print(f'    "{text[start : start + 96]}"')


if __name__ == "__main__":
    main()

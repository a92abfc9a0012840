"""The palette bright: people tell its colours apart, on any image and with any kind of colour vision."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.palettes import GREYS, VISIONS, ciede2000, figures, lab, nearest, on_images
from fcn_cli.common import palettes
from fcn_cli.common.class_names import VOC_CLASSES

# From table 1 of Sharma, Wu and Dalal (2005), the pairs that find wrong hue arithmetic.
REFERENCE = [
    ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
    ((50.0, -1.3802, -84.2814), (50.0, 0.0, -82.7485), 1.0000),
    ((50.0, 0.0, 0.0), (50.0, -1.0, 2.0), 2.3669),
    ((50.0, 2.4900, -0.0010), (50.0, -2.4900, 0.0009), 7.1792),
    ((50.0, 2.4900, -0.0010), (50.0, -2.4900, 0.0011), 7.2195),
    ((50.0, -0.0010, 2.4900), (50.0, 0.0011, -2.4900), 4.7461),
    ((50.0, 2.5, 0.0), (50.0, 0.0, -2.5), 4.3065),
    ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
    ((50.0, 2.5, 0.0), (58.0, 24.0, 15.0), 19.4535),
    ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ((90.8027, -2.0831, 1.4410), (91.1528, -1.6435, 0.0447), 1.4441),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]


@pytest.mark.parametrize(("first", "second", "expected"), REFERENCE)
def test_the_measure_is_ciede2000(
    first: tuple[float, ...], second: tuple[float, ...], expected: float
) -> None:
    for pair in ((first, second), (second, first)):
        assert float(ciede2000(*(np.array(color) for color in pair))) == pytest.approx(expected, abs=1e-4)


def test_lab_is_that_of_srgb_and_whites_and_greys_look_the_same_to_everybody() -> None:
    # The primaries of sRGB (IEC 61966-2-1), D65.
    known = {
        (255, 255, 255): (100.0, 0.0, 0.0),
        (255, 0, 0): (53.24, 80.09, 67.20),
        (0, 0, 255): (32.30, 79.19, -107.86),
        (119, 119, 119): (50.03, 0.0, 0.0),
    }
    for color, expected in known.items():
        assert np.allclose(lab(np.array(color)), expected, atol=0.02)
    greys = np.repeat(np.arange(256)[:, None], 3, axis=1)
    for vision in VISIONS:
        assert np.abs(lab(greys, vision) - lab(greys)).max() < 0.02


def test_the_nearest_two_of_21_colours_are_far_apart_in_every_vision() -> None:
    bright = figures(palettes.bright())
    for other in (palettes.hub(), palettes.voc()):
        compared = figures(other)
        for vision in VISIONS:
            assert bright[vision] > 3.5 * compared[vision]
    assert bright["normal"] > 16
    assert min(bright[vision] for vision in VISIONS) > 9.5


def test_cat_dog_and_bird_do_not_look_alike() -> None:
    indices = [VOC_CLASSES.index(name) for name in ("cat", "dog", "bird")]
    assert min(nearest(palettes.hub()[indices], vision) for vision in VISIONS) < 7
    assert min(nearest(palettes.bright()[indices], vision) for vision in VISIONS) > 22


def test_every_colour_shows_on_dark_grey_and_white_images() -> None:
    colors = palettes.bright()[1:255]
    assert on_images(colors, list(GREYS.values())).min() > 13
    # On dark images, where hub's dark teal and some of voc's colours vanish.
    black = [GREYS["black"]]
    assert on_images(colors, black).min() > 24
    assert on_images(palettes.hub()[1:21], black).min() < 21
    assert on_images(palettes.voc()[1:21], black).min() < 14


def test_it_goes_on_to_255_classes_with_colours_that_differ() -> None:
    colors = palettes.bright()
    assert colors.shape == (256, 3)
    assert colors.dtype == np.uint8
    assert len({tuple(color) for color in colors.tolist()}) == 256
    assert colors[0].tolist() == [0, 0, 0]
    assert colors[255].tolist() == list(palettes.BRIGHT_VOID)
    assert nearest(colors[:64], "normal") > 6
    assert nearest(colors, "normal") > 2.5
    for other in (palettes.hub(), palettes.voc()):
        assert nearest(other, "normal") < 1

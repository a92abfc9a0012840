"""Label maps as PNG files: what other decoders read of them, and that both kinds share one compression."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fcn_cli.common import palettes
from fcn_cli.common.label_map import Segmentation, count_classes
from fcn_cli.inputs.decode_options import DecodeOptions
from fcn_cli.outputs import index_png
from fcn_cli.outputs.looks import LookRequest
from fcn_cli.outputs.writers import ColorWriter, MaskWriter, Original, Writer, encode

NO_IMAGE = Original("label maps need no image", DecodeOptions())
labels = st.builds(
    lambda height, width, seed, runs: np.repeat(
        np.random.default_rng(seed).integers(0, 256, -(-height * width // runs), dtype=np.uint8), runs
    )[: height * width].reshape(height, width),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 1000),
    st.sampled_from([1, 3, 20]),
)


def decoded(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image


@given(labels)
def test_any_label_map_comes_back_as_it_was(
    given_labels: np.ndarray[tuple[int, int], np.dtype[np.uint8]],
) -> None:
    segmentation = Segmentation(given_labels)
    look = LookRequest().resolve(None)
    streams = io.BytesIO(), io.BytesIO()
    writers: tuple[Writer, Writer] = (MaskWriter(look), ColorWriter(look))
    for writer, stream in zip(writers, streams, strict=True):
        encode(writer, segmentation, NO_IMAGE, stream)
    mask, color = (decoded(stream.getvalue()) for stream in streams)
    assert (mask.mode, color.mode) == ("L", "P")
    assert np.array_equal(np.array(mask), given_labels)
    assert np.array_equal(np.array(color), given_labels)
    assert color.getpalette() == palettes.load("hub").flatten().tolist()


@given(labels)
def test_classes_are_counted_whatever_the_runs(
    given_labels: np.ndarray[tuple[int, int], np.dtype[np.uint8]],
) -> None:
    expected = dict(sorted(Counter(given_labels.flatten().tolist()).items()))
    assert count_classes(given_labels) == expected
    assert list(count_classes(given_labels)) == list(expected)


def test_rows_beyond_one_strip_and_parts_of_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_png, "_STRIP_BYTES", 100)
    monkeypatch.setattr(index_png, "_LARGEST_CHUNK", 16)
    made = np.random.default_rng(0).integers(0, 21, (33, 47), dtype=np.uint8)
    stream = io.BytesIO()
    index_png.write(stream, made, index_png.compress(made))
    assert stream.getvalue().count(b"IDAT") > 10
    assert np.array_equal(np.array(decoded(stream.getvalue())), made)


def test_masks_and_colours_are_compressed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    compress = index_png.compress

    def counted(given_labels: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> bytes:
        calls.append(1)
        return compress(given_labels)

    monkeypatch.setattr(index_png, "compress", counted)
    look = LookRequest().resolve(None)
    segmentation = Segmentation(np.zeros((4, 5), np.uint8))
    writers: tuple[Writer, Writer] = (MaskWriter(look), ColorWriter(look))
    for writer in writers:
        encode(writer, segmentation, NO_IMAGE, io.BytesIO())
    assert calls == [1]

"""The Python API: kinds of images, order, batches, threads; results that are the command's."""

from __future__ import annotations

import base64
import inspect
import io
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

import fcn_cli
from benchmarks.material import randomise
from fcn_cli import FailureKind, ImageError, RequestError, Result, Segmenter, SegmenterOptions, WeightsError
from fcn_cli.common import resources
from fcn_cli.inference import engine
from fcn_cli.inputs import decoder, formats, resizing, user_images
from fcn_cli.inputs.user_images import ImageLike
from fcn_cli.models import registry

from .conftest import SAMPLES

CHELSEA = SAMPLES / "chelsea.png"
SIDE = 96


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter("efficientnet_lite0", resize=SIDE)


@pytest.fixture(scope="module")
def random_resnet50(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that sees several classes everywhere."""
    model = registry.find("resnet50").build(21).eval()
    randomise(model)
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(model.state_dict(), path)
    return path


def cuts(
    count: int, sizes: Sequence[tuple[int, int]] = ((120, 90), (90, 120), (100, 100))
) -> list[Image.Image]:
    """Different images of several shapes."""
    whole = Image.open(SAMPLES / "astronaut.png").convert("RGB")
    found = []
    for number in range(count):
        width, height = sizes[number % len(sizes)]
        left, top = 37 * number % (512 - width), 53 * number % (512 - height)
        found.append(whole.crop((left, top, left + width, top + height)))
    return found


# ---- kinds of images


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, form)
    return stream.getvalue()


class Unseekable(io.RawIOBase):
    """As what comes from a network or a pipe."""

    def __init__(self, data: bytes) -> None:
        self._rest = data

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


def after_a_header() -> io.BytesIO:
    stream = io.BytesIO(b"header" + CHELSEA.read_bytes())
    stream.seek(6)
    return stream


@pytest.mark.parametrize(
    "image",
    [
        lambda: str(CHELSEA),
        lambda: CHELSEA,
        lambda: CHELSEA.read_bytes(),
        lambda: bytearray(CHELSEA.read_bytes()),
        lambda: CHELSEA.open("rb"),
        lambda: io.BytesIO(CHELSEA.read_bytes()),
        lambda: Unseekable(CHELSEA.read_bytes()),
        after_a_header,
        lambda: Image.open(CHELSEA),
        lambda: Image.open(CHELSEA).convert("RGBA"),
        lambda: np.array(Image.open(CHELSEA)),
        lambda: np.array(Image.open(CHELSEA))[:, ::-1][:, ::-1],
        lambda: np.asfortranarray(np.array(Image.open(CHELSEA))),
    ],
)
def test_every_kind_of_image_gives_the_mask_of_the_file(
    image: Callable[[], ImageLike], segmenter: Segmenter
) -> None:
    expected = segmenter(CHELSEA)
    assert len(np.unique(expected.labels)) > 1
    given = image()
    got = segmenter(given)
    assert np.array_equal(got.labels, expected.labels)
    assert got.image.tobytes() == Image.open(CHELSEA).convert("RGB").tobytes()
    if isinstance(given, io.IOBase):
        given.close()


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (None, "NoneType"),
        (3, "int"),
        ([CHELSEA], "list"),
        (torch.zeros(3, 4, 4), "Tensor"),
        (np.zeros((4, 4)), r"\(4, 4\)"),
        (np.zeros((4, 4, 3)), "float64"),
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
        (io.StringIO("text"), "text"),
    ],
)
def test_what_is_no_image_is_a_type_error(image: Any, text: str, segmenter: Segmenter) -> None:
    with pytest.raises(TypeError, match=text):
        segmenter(image)
    with pytest.raises(TypeError, match=text):
        list(segmenter.batch([image], on_error="return"))


def closed_file() -> io.BytesIO:
    stream = io.BytesIO(b"x")
    stream.close()
    return stream


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (b"", FailureKind.EMPTY_FILE),
        (b"no image", FailureKind.NOT_AN_IMAGE),
        (CHELSEA.read_bytes()[:50000], FailureKind.TRUNCATED),
        ("nowhere.png", FailureKind.NOT_FOUND),
        (closed_file(), FailureKind.UNREADABLE),
        (Image.open(io.BytesIO(CHELSEA.read_bytes()[:50000])), FailureKind.TRUNCATED),
    ],
)
def test_an_image_that_cannot_be_read_is_an_image_error(
    image: ImageLike, kind: FailureKind, segmenter: Segmenter
) -> None:
    with pytest.raises(ImageError) as raised:
        segmenter(image)
    assert raised.value.failure.kind == kind


def test_a_result_keeps_what_it_was_given(segmenter: Segmenter) -> None:
    """Whatever the caller does with the array or the image afterwards."""
    pixels = np.array(Image.open(CHELSEA))
    image = Image.open(CHELSEA).convert("RGB")
    results = [segmenter(pixels), segmenter(image)]
    before = [result.overlay().tobytes() for result in results]
    pixels[:] = 0
    image.paste((0, 0, 0), (0, 0, *image.size))
    assert [result.overlay().tobytes() for result in results] == before


# ---- batches


def as_kinds(images: Sequence[Image.Image], folder: Path) -> list[ImageLike]:
    kinds: list[ImageLike] = []
    for number, image in enumerate(images):
        path = folder / f"{number}.png"
        image.save(path)
        data = path.read_bytes()
        forms: list[ImageLike] = [path, data, np.array(image), image, io.BytesIO(data)]
        kinds.append(forms[number % 5])
    return kinds


@pytest.mark.parametrize("batch_size", [None, 3])
def test_a_batch_is_the_single_images_in_order(batch_size: int | None, tmp_path: Path) -> None:
    ours = Segmenter("efficientnet_lite0", resize=SIDE, batch_size=batch_size, confidence=True)
    images = cuts(8)
    expected = [ours(image) for image in images]
    assert len({one.confidence.tobytes() for one in expected if one.confidence is not None}) > 3
    for got, one in zip(ours.batch(as_kinds(images, tmp_path)), expected, strict=True):
        assert np.array_equal(got.labels, one.labels)
        assert got.confidence is not None
        assert one.confidence is not None
        assert np.array_equal(got.confidence, one.confidence)
        assert got.image.tobytes() == one.image.tobytes()
    assert list(ours.batch([])) == []


def test_images_of_one_shape_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Segmenter("efficientnet_lite0", resize=SIDE, batch_size=4, kernels="torch")
    counts: list[int] = []
    real = engine.Engine.predict

    def predict(self: engine.Engine, pixels: Any, *more: Any) -> Any:
        counts.append(len(pixels))
        return real(self, pixels, *more)

    monkeypatch.setattr(engine.Engine, "predict", predict)
    images = cuts(12, ((120, 90), (90, 120)))
    assert len(list(ours.batch(images))) == 12
    assert sorted(counts) == [2, 2, 4, 4]


def test_failures_stand_in_their_places_or_raise_in_their_turn(segmenter: Segmenter) -> None:
    given: list[ImageLike] = [CHELSEA, b"", CHELSEA, "nowhere.png", CHELSEA]
    got = list(segmenter.batch(given, on_error="return"))
    assert [type(one) for one in got] == [Result, ImageError, Result, ImageError, Result]
    kinds = [one.failure.kind for one in got if isinstance(one, ImageError)]
    assert kinds == [FailureKind.EMPTY_FILE, FailureKind.NOT_FOUND]
    results = segmenter.batch(given)
    assert isinstance(next(results), Result)
    with pytest.raises(ImageError, match="0 bytes"):
        next(results)
    with pytest.raises(ValueError, match="ignore"):
        segmenter.batch(given, on_error="ignore")  # type: ignore[call-overload]


def test_an_error_of_the_iterable_comes_after_the_results_before_it(segmenter: Segmenter) -> None:
    def given() -> Iterator[ImageLike]:
        yield CHELSEA
        yield CHELSEA
        raise KeyError("the caller's own")

    results = segmenter.batch(given())
    assert len([next(results), next(results)]) == 2
    with pytest.raises(KeyError, match="own"):
        next(results)


def test_buffers_may_be_used_again_for_the_next_image(segmenter: Segmenter, tmp_path: Path) -> None:
    images = cuts(5, ((100, 100),))
    expected = [segmenter(image).labels for image in images]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:])
    frames = [
        segmenter(frame.convert("RGB")).labels
        for frame in ImageSequence.Iterator(Image.open(tmp_path / "a.gif"))
    ]

    def one_array() -> Iterator[ImageLike]:
        buffer = np.empty((100, 100, 3), np.uint8)
        for image in images:
            buffer[:] = np.array(image)
            yield buffer

    def closed_files() -> Iterator[ImageLike]:
        for image in images:
            with io.BytesIO(encoded(image)) as stream:
                yield stream

    for given, masks in ((one_array(), expected), (closed_files(), expected)):
        for got, mask in zip(segmenter.batch(given), masks, strict=True):
            assert np.array_equal(got.labels, mask)
    movie = segmenter.batch(ImageSequence.Iterator(Image.open(tmp_path / "a.gif")))
    for got, mask in zip(movie, frames, strict=True):
        assert np.array_equal(got.labels, mask)


def test_images_are_taken_a_bounded_number_ahead(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "cpu_count", lambda: 2)
    ahead = []
    taken = 0

    def given() -> Iterator[ImageLike]:
        nonlocal taken
        for image in cuts(16):
            taken += 1
            yield image

    for done, _ in enumerate(segmenter.batch(given())):
        ahead.append(taken - done)
    assert max(ahead) == 2 * 1 + 2
    # By memory too: three of these are all that may wait.
    monkeypatch.setattr(user_images, "LOOK_AHEAD_BYTES", 3 * (4 * 120 * 90 + 3 * 128 * 96))
    taken = 0
    ahead.clear()
    for done, _ in enumerate(Segmenter("efficientnet_lite0", resize=SIDE, batch_size=16).batch(given())):
        ahead.append(taken - done)
    assert 3 <= max(ahead) <= 5


def test_decoding_goes_on_beside_the_network(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    second = threading.Event()
    real_inputs, real_predict = resizing.network_inputs, engine.Engine.predict
    decoded = []

    def inputs(*arguments: Any) -> Any:
        result = real_inputs(*arguments)
        decoded.append(result)
        if len(decoded) == 3:
            second.set()
        return result

    def predict(*arguments: Any) -> Any:
        # While the first image is in the network, the third is decoded.
        assert second.wait(20)
        return real_predict(*arguments)

    monkeypatch.setattr(resizing, "network_inputs", inputs)
    monkeypatch.setattr(engine.Engine, "predict", predict)
    assert len(list(segmenter.batch([CHELSEA] * 3))) == 3


def test_threads_end_with_a_batch_that_is_left(segmenter: Segmenter) -> None:
    results = segmenter.batch([CHELSEA] * 9)
    next(results)
    assert any(thread.name.startswith("fcn-decode") for thread in threading.enumerate())
    results.close()  # type: ignore[attr-defined]
    assert not any(thread.name.startswith("fcn-decode") for thread in threading.enumerate())


# ---- threads


def check_shared(ours: Segmenter, images: Sequence[Image.Image], threads: int, repetitions: int) -> None:
    expected = [ours(image).labels for image in images]
    assert len({mask.tobytes() for mask in expected}) > 1
    start = threading.Barrier(threads)

    def work(number: int) -> int:
        start.wait()
        wrong = 0
        for repetition in range(repetitions):
            index = (number + repetition) % len(images)
            wrong += not np.array_equal(ours(images[index]).labels, expected[index])
        return wrong

    with ThreadPoolExecutor(threads) as pool:
        assert list(pool.map(work, range(threads))) == [0] * threads


@pytest.mark.long
def test_threads_that_share_a_segmenter_get_the_masks_of_one(segmenter: Segmenter) -> None:
    check_shared(segmenter, cuts(8), threads=6, repetitions=20)


@pytest.mark.slow
def test_threads_that_share_a_resnet_get_the_masks_of_one(random_resnet50: Path) -> None:
    ours = Segmenter("resnet50", weights=random_resnet50, resize=40)
    # Shapes differ, and so do the buffers that they would overwrite for each other.
    images = cuts(6, ((120, 90), (60, 130), (100, 100)))
    check_shared(ours, images, threads=4, repetitions=9)


def test_threads_that_share_a_segmenter_in_batches(segmenter: Segmenter) -> None:
    images = cuts(10)
    expected = [segmenter(image).labels for image in images]

    def work(turn: int) -> bool:
        order = images[turn:] + images[:turn]
        masks = expected[turn:] + expected[:turn]
        got = segmenter.batch(order)
        return all(np.array_equal(one.labels, mask) for one, mask in zip(got, masks, strict=True))

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(work, range(3)))


@pytest.mark.long
def test_another_number_of_torch_threads_changes_no_mask(random_resnet50: Path) -> None:
    """torch's number is the process's or a thread's: another part of a program may have set it."""
    before = torch.get_num_threads()
    ours = Segmenter("resnet50", weights=random_resnet50, resize=40, threads=2)
    expected = ours(CHELSEA).labels

    def work() -> np.ndarray[Any, Any]:
        torch.set_num_threads(1)
        return ours(CHELSEA).labels

    with ThreadPoolExecutor(1) as pool:
        assert np.array_equal(pool.submit(work).result(), expected)
        assert pool.submit(torch.get_num_threads).result() == 2
    torch.set_num_threads(before)


# ---- what is wrong is said, and exported


@pytest.mark.long
def test_the_errors_are_exported_without_torch() -> None:
    code = (
        "import sys, fcn_cli; from fcn_cli import *; "
        "assert issubclass(ImageError, FcnError) and issubclass(WeightsError, RequestError); "
        "assert issubclass(DeviceLost, FcnError) and FailureKind.NOT_FINITE and Failure; "
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    light = "import sys; from fcn_cli import ImageError, DeviceLost; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", light], check=True)
    for name in fcn_cli.__all__:
        assert hasattr(fcn_cli, name)
        assert name in dir(fcn_cli)
    with pytest.raises(AttributeError, match="nothing"):
        _ = fcn_cli.nothing


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_a_device_that_is_not_there_is_refused_before_weights_are_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    with pytest.raises(RequestError, match="no usable CUDA device") as raised:
        Segmenter("resnet50", device="cuda", offline=True)
    assert not isinstance(raised.value, WeightsError)
    with pytest.raises(WeightsError, match="and offline forbids"):
        Segmenter("resnet50", device="cpu", offline=True)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"resize": 0}, "resize 0"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"threads": -1}, "threads -1"),
        ({"min_confidence": 1.5}, "min_confidence 1.5"),
        ({"precision": "fp8"}, "fp8: not one of auto, fp32, bf16, fp16"),
        ({"kernels": "slow"}, "slow: not one of auto, fast, torch"),
        ({"device": "cpu:1"}, "cpu:1: not one of"),
        ({"backbone": "vgg"}, "backbone vgg: not one of"),
        ({"overlap": 8}, "overlap says how far tiles overlap: add tile"),
        ({"tile": 200, "overlap": 150}, "overlap 150: at most half of tile 200"),
        ({"scales": [9.0]}, "scales are numbers from 0.25 to 4"),
        ({"class_names": "nowhere.txt"}, "class_names nowhere.txt: cannot be read"),
        ({"class_names": Path(__file__).parent / "conftest.py"}, "needs one name per line"),
    ],
)
def test_options_that_are_wrong_are_said(options: dict[str, Any], text: str) -> None:
    with pytest.raises(RequestError, match=re.escape(text)) as raised:
        Segmenter(**{"backbone": "efficientnet_lite0", **options})
    assert "--" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"resize": "520"}, "resize is '520'; a whole number or None is needed"),
        ({"resize": 520.0}, "resize is 520.0; a whole number or None is needed"),
        ({"threads": True}, "threads is True; a whole number or None is needed"),
        ({"device": 0}, "device is 0; a name is needed"),
        ({"device": None}, "device is None; a name is needed"),
        ({"scales": 1.5}, "scales is 1.5; a list of numbers is needed"),
        ({"scales": "1,2"}, "scales is '1,2'; a list of numbers is needed"),
        ({"min_confidence": None}, "min_confidence is None; a number is needed"),
        ({"flip": "no"}, "flip is 'no'; True or False is needed"),
        ({"class_names": ["cat"]}, "class_names is ['cat']; a path or None is needed"),
        ({"backbone": None}, "backbone is None; a name is needed"),
    ],
)
def test_options_of_another_type_are_said_before_weights_are_looked_for(
    options: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    with pytest.raises(TypeError, match=re.escape(text)):
        Segmenter(**{"backbone": "resnet50", "offline": True, **options})


def test_options_are_documented_and_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    described = re.findall(r"^(\w+(?:, \w+)*)\n    \S", inspect.getdoc(SegmenterOptions) or "", re.MULTILINE)
    assert ", ".join(described).split(", ") == list(SegmenterOptions.__annotations__)
    options: Any = {"resize": np.int64(SIDE), "scales": np.array([0.5, 1.0])}
    labels = Segmenter("efficientnet_lite0", **options)(CHELSEA).labels
    expected = Segmenter("efficientnet_lite0", resize=SIDE, scales=[0.5, 1.0])(CHELSEA).labels
    assert np.array_equal(labels, expected)
    (tmp_path / "names").write_text("one\ntwo\n")
    with pytest.raises(RequestError, match=r"^class_names: 2 names for the 21 classes of the official"):
        Segmenter("resnet50", class_names=tmp_path / "names", offline=True)


# ---- results and errors name their image


def test_results_and_errors_carry_and_print_their_image(segmenter: Segmenter) -> None:
    pixels = np.array(Image.open(CHELSEA))
    with CHELSEA.open("rb") as file:
        given: list[ImageLike] = [CHELSEA, pixels, b"no image", "nowhere.png", file, Image.open(CHELSEA)]
        got = list(segmenter.batch(given, on_error="return"))
    sources = [str(CHELSEA), "image 1", "image 2", "nowhere.png", str(CHELSEA), str(CHELSEA)]
    assert [one.source for one in got] == sources
    for one, source in zip(got, sources, strict=True):
        assert source in str(one)
    error = got[2]
    assert isinstance(error, ImageError)
    assert str(error) == f"image 2: {error.failure.message}"
    assert error.failure.message.startswith("not an image")
    first = got[0]
    assert isinstance(first, Result)
    shares = sorted(first.stats(), key=lambda share: -share.pixels)
    classes = ", ".join(f"{share.class_name} {share.fraction:.1%}" for share in shares[:5])
    assert str(first).startswith(f"<Result {CHELSEA}, 451x300: {classes}")
    assert str(segmenter(pixels)).startswith(f"<Result 451x300: {classes}")
    with pytest.raises(ImageError, match=r"^nowhere\.png: no such file"):
        segmenter("nowhere.png")
    with pytest.raises(ImageError, match=r"^not an image") as raised:
        segmenter(b"no image")
    assert raised.value.source == ""


def test_errors_of_calls_are_in_terms_of_the_api(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = segmenter(CHELSEA)
    assert result.cutout("cat").tobytes() == result.cutout(["cat"]).tobytes() == result.cutout(8).tobytes()
    assert result.cutout("cat").tobytes() != result.cutout("dog").tobytes()
    with pytest.raises(RequestError, match=r"^cutout unicorn: no such class"):
        result.cutout("unicorn")
    for call in (result.color, result.overlay):
        with pytest.raises(RequestError, match=r"^palette mauve: no such palette"):
            call("mauve")
    monkeypatch.setattr(decoder, "_check_pixels", lambda *_: formats.refuse_pixels("9x9", 10))
    for image in (CHELSEA, CHELSEA.read_bytes()):
        (error,) = segmenter.batch([image], on_error="return")
        assert isinstance(error, ImageError)
        assert "if that is intended, give its pixels as an array" in str(error)
        assert "--" not in error.failure.message


@pytest.mark.parametrize(
    "image", ["cat.jpg", Path("cat.jpg"), b"data", io.BytesIO(), Image.new("RGB", (9, 9))]
)
def test_a_batch_of_one_image_that_is_no_list_is_refused_at_once(image: Any, segmenter: Segmenter) -> None:
    with pytest.raises(TypeError, match="batch takes several images, this is one"):
        segmenter.batch(image)


# ---- in a notebook


def test_a_notebook_shows_the_overlay_and_its_classes(tmp_path: Path) -> None:
    names = tmp_path / "names"
    names.write_text("\n".join(["<b>other</b>", *(f"class {index}" for index in range(1, 21))]))
    image = Image.open(CHELSEA).convert("RGB").resize((1600, 1064))
    result = Segmenter("efficientnet_lite0", resize=SIDE, class_names=str(names))(image)
    shown = result._repr_html_()
    data = re.search(r'src="data:image/jpeg;base64,([^"]+)"', shown)
    assert data is not None
    picture = Image.open(io.BytesIO(base64.b64decode(data[1])))
    assert picture.size == (800, 532)
    overlay = np.array(result.overlay().resize(picture.size), dtype=int)
    assert np.abs(np.array(picture, dtype=int) - overlay).mean() < 8
    for share in result.stats():
        if share.class_id:
            assert f"{share.class_name} {share.fraction:.1%}" in shown
    assert "&lt;b&gt;other" in shown
    assert "<b>" not in shown
    # Its text stays one line: no arrays.
    assert len(repr(result)) < 300


def test_an_option_of_another_name_is_refused() -> None:
    with pytest.raises(TypeError, match="Segmenter has no option colour"):
        Segmenter("efficientnet_lite0", colour="red")  # type: ignore[call-arg]

"""Results of threads come in order, and only so much waits for them."""

from __future__ import annotations

import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fcn_cli.common.label_map import Segmentation
from fcn_cli.common.ordered_work import OrderedWork
from fcn_cli.evaluation import accuracy
from fcn_cli.evaluation.ground_truth import FolderTruth
from fcn_cli.inference.engine import Engine

from ..conftest import SMALL, Fcn, MakeImages
from ..evaluation.test_evaluate import evaluated, save


@settings(max_examples=50)
@given(st.lists(st.integers(0, 12), max_size=30), st.integers(1, 5), st.integers(1, 20))
def test_order_count_and_bytes_hold(sizes: list[int], max_count: int, max_bytes: int) -> None:
    waiting: dict[int, int] = {}
    taken = []

    def take(work: OrderedWork[int, int], *, everything: bool = False) -> None:
        for key, future, size in work.take(everything=everything):
            assert future.done()
            assert future.result() == key * key
            assert size == waiting.pop(key)
            taken.append(key)

    with OrderedWork[int, int](2, "test", max_count=max_count, max_bytes=max_bytes) as work:
        for key, size in enumerate(sizes):
            waiting[key] = size
            if size:
                work.submit(key, lambda key=key: key * key, size)  # type: ignore[misc]
            else:
                work.submit_result(key, key * key)
            take(work)
            assert len(work) == len(waiting) <= max_count
            assert sum(waiting.values()) <= max_bytes or len(waiting) == 1
        take(work, everything=True)
        assert len(work) == 0
    assert taken == list(range(len(sizes)))


def test_what_is_not_done_is_waited_for_only_beyond_the_bounds() -> None:
    go = threading.Event()
    with OrderedWork[int, bool](1, "test", max_bytes=10, max_count=3) as work:
        for key in range(3):
            work.submit(key, lambda: go.wait(10), 3)
            assert list(work.take()) == []
        assert [task.key for task in work] == [0, 1, 2]
        threading.Timer(0.1, go.set).start()
        work.submit(3, lambda: True, 3)
        # Twelve bytes, and four tasks: the oldest is waited for.
        assert next(iter(work.take())).key == 0
        assert go.is_set()
        assert [task.key for task in work.take(everything=True)] == [1, 2, 3]


def test_an_exception_comes_in_the_place_of_its_result() -> None:
    def broken() -> int:
        raise ValueError("broken")

    with OrderedWork[str, int](2, "test", max_bytes=0) as work:
        work.submit("good", lambda: 1)
        work.submit("broken", broken)
        work.submit_result("failed before", KeyError("x"))
        work.submit_result("done before", 2)
        results = {
            key: type(future.exception()) if future.exception() else future.result()
            for key, future, _ in work.take(everything=True)
        }
    assert list(results.items()) == [
        ("good", 1),
        ("broken", ValueError),
        ("failed before", KeyError),
        ("done before", 2),
    ]


def test_what_has_not_begun_is_dropped_when_the_work_is_broken_off() -> None:
    begun, go = [], threading.Event()

    def slow(key: int) -> None:
        begun.append(key)
        go.wait(10)

    def broken_off() -> None:
        with OrderedWork[int, None](1, "test", max_bytes=0) as work:
            for key in range(10):
                work.submit(key, lambda key=key: slow(key))  # type: ignore[misc]
                assert not list(work.take())
            threading.Timer(0.1, go.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert len(begun) <= 2


@pytest.mark.long
def test_an_evaluation_holds_only_so_many_bytes_of_label_maps(
    fcn: Fcn, make_images: MakeImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With truth that is slow to read, label maps pile up to the bound and no further."""
    made = make_images([f"{n:02}.png" for n in range(24)], size=(100, 100))
    for path in made.iterdir():
        save(np.full(Image.open(path).size[::-1], 8, np.uint8), tmp_path / "truth" / path.name)
    alive: list[weakref.ref[Any]] = []
    most = 0
    load = FolderTruth.load

    def fast(engine: Engine, sizes: list[tuple[int, int]]) -> list[Segmentation]:
        nonlocal most
        results = [Segmentation(np.full((height, width), 8, np.uint8)) for width, height in sizes]
        alive.extend(weakref.ref(one.labels) for one in results)
        most = max(most, sum(labels.nbytes for one in alive if (labels := one()) is not None))
        return results

    def slow(truth: FolderTruth, name: str, *sizes: Any) -> Any:
        time.sleep(0.1)
        return load(truth, name, *sizes)

    monkeypatch.setattr(Engine, "launch", lambda _engine, batch, _stacked: batch.sizes)
    monkeypatch.setattr(Engine, "collect", fast)
    monkeypatch.setattr(FolderTruth, "load", slow)
    monkeypatch.setattr(accuracy, "MAX_HELD_BYTES", 60_000)
    got = evaluated(fcn, made, "truth", *SMALL)
    assert (got["images"], got["mean_iou"]) == (24, 1)
    # Five of 10,000 to 10,200 bytes, one that has just come, and one that each thread has not let go yet.
    assert 40_000 <= most <= 92_000

"""Which stage limits a pipeline is told from where its driving thread waits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from fcn_cli.runs.prediction_stream import StageClock


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


def run(clock: StageClock, time: Time, decoding: float, network: float, writing: float, rounds: int) -> None:
    def decoded() -> Iterator[int]:
        for image in range(rounds):
            time.passes(decoding)
            yield image

    def predicted(images: Iterator[int]) -> Iterator[int]:
        for image in images:
            time.passes(network)
            yield image

    for _ in clock.each("network", predicted(clock.each("decoding", decoded()))):
        with clock.stage("writing"):
            time.passes(writing)
        # Between the stages, nothing counts.
        time.passes(0.5)


@pytest.mark.parametrize(
    ("seconds", "limiting"),
    [((3, 0.5, 0.1), "decoding"), ((0.1, 2, 0.3), "network"), ((0, 1, 5), "writing"), ((1, 1, 1), None)],
)
def test_the_stage_that_holds_the_others_up_is_named(
    seconds: tuple[float, float, float], limiting: str | None
) -> None:
    time = Time()
    clock = StageClock(time)
    run(clock, time, *seconds, rounds=10)
    assert clock.limiting() == limiting
    assert clock.seconds == pytest.approx(
        dict(zip(("decoding", "network", "writing"), (10 * s for s in seconds), strict=True))
    )


def test_what_was_long_ago_does_not_count() -> None:
    time = Time()
    clock = StageClock(time)
    assert clock.limiting() is None
    run(clock, time, 5, 1, 0, rounds=20)
    run(clock, time, 0, 1, 5, rounds=10)
    assert clock.limiting() == "writing"


def test_a_stage_that_fails_is_closed() -> None:
    time = Time()
    clock = StageClock(time)
    with contextlib.suppress(ValueError), clock.stage("network"):
        time.passes(3)
        raise ValueError("broken")
    time.passes(100)
    assert clock.seconds == {"network": 3}

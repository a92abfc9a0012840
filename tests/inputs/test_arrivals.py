"""An image is whole once it has not changed for a while: what a watch takes, and when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fcn_cli.inputs.arrivals import Arrivals
from fcn_cli.inputs.discovery import Source


def image(name: str, size: int | None = 1, mtime: int | None = 1) -> Source:
    return Source(name, name, name, f"{name}.png", size, mtime)


def names(sources: list[Source]) -> list[str]:
    return [source.image for source in sources]


def test_an_image_is_ready_once_and_only_after_it_kept_still() -> None:
    arrivals = Arrivals(2)
    assert names(arrivals.scan([image("a")], 0, 0.5).ready) == []
    # The last of the first states was asked for at 0.5.
    assert names(arrivals.scan([image("a")], 2.4, 2.5).ready) == []
    assert arrivals.waiting == 1
    assert names(arrivals.scan([image("a")], 2.5, 2.6).ready) == ["a"]
    assert arrivals.waiting == 0
    assert names(arrivals.scan([image("a")], 9, 9).ready) == []


def test_an_image_that_grows_or_has_another_time_waits_again() -> None:
    arrivals = Arrivals(2)
    arrivals.scan([image("a"), image("b")], 0, 0)
    look = arrivals.scan([image("a", size=2), image("b", mtime=0)], 2, 2)
    assert names(look.ready) == []
    assert names(arrivals.scan([image("a", size=2), image("b", mtime=0)], 4, 4).ready) == ["a", "b"]
    # An older time of the same size is another state too.
    arrivals.scan([image("a", size=2), image("b", mtime=-5)], 5, 5)
    assert names(arrivals.scan([image("a", size=2), image("b", mtime=-5)], 7, 7).ready) == ["b"]


def test_what_is_gone_is_named_once_and_comes_as_new() -> None:
    arrivals = Arrivals(2)
    arrivals.scan([image("a"), image("b")], 0, 0)
    arrivals.scan([image("a"), image("b")], 2, 2)
    assert names(arrivals.scan([image("b")], 3, 3).vanished) == ["a"]
    assert names(arrivals.scan([image("b")], 4, 4).vanished) == []
    assert names(arrivals.scan([image("a"), image("b")], 5, 5).ready) == []
    assert names(arrivals.scan([image("a"), image("b")], 7, 7).ready) == ["a"]


def test_an_image_is_given_back_once_for_each_state() -> None:
    arrivals = Arrivals(2)
    for time in (0, 2):
        arrivals.scan([image("a")], time, time)
    assert arrivals.give_back(image("a"))
    assert arrivals.waiting == 1
    assert names(arrivals.scan([image("a")], 4, 4).ready) == ["a"]
    # It only looks as if it changed: else the watch would never come to an end with it.
    assert not arrivals.give_back(image("a"))
    arrivals.scan([image("a", size=2)], 5, 5)
    assert arrivals.give_back(image("a"))
    assert names(arrivals.scan([image("a", size=2)], 7, 7).ready) == ["a"]
    assert arrivals.give_back(image("a", size=2))


STATES = st.one_of(st.none(), st.tuples(st.integers(0, 2), st.integers(0, 2)))
"""A file's size and time at one look; None: it is not there."""


@given(st.lists(st.tuples(STATES, st.floats(0.01, 1.5)), max_size=30))
def test_ready_is_what_was_the_same_for_as_long_as_asked(
    looks: list[tuple[tuple[int, int] | None, float]],
) -> None:
    """Against the definition: the same state in all looks of the last 2 s, and not ready since it began."""
    arrivals = Arrivals(2)
    now = 0.0
    since: float | None = None
    before: tuple[int, int] | None = None
    taken = False
    for state, step in looks:
        now += step
        if state != before or since is None:
            since, taken = (now if state is not None else None), False
        expected = state is not None and since is not None and not taken and now - since >= 2
        taken = taken or expected
        found = [] if state is None else [image("a", *state)]
        look = arrivals.scan(found, now, now)
        assert names(look.ready) == (["a"] if expected else [])
        assert names(look.vanished) == (["a"] if state is None and before is not None else [])
        before = state

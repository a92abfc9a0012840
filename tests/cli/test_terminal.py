"""The bar fits its terminal, also after the window was resized; the table of a run has bars of its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import pytest

from fcn_cli.cli.display import TerminalBar

from ..conftest import SMALL, MakeImages, command
from ..terminal import BAR, BOXES, is_painted, on_a_terminal, what_stays


class Terminal:
    """A pseudo-terminal, with a stream to write to."""

    def __init__(self) -> None:
        self.ours, theirs = pty.openpty()
        self.stream: TextIO = os.fdopen(theirs, "w", encoding="utf-8")

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self.stream, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def drawn(self, draw: Callable[[], object]) -> list[str]:
        """Return the lines that a call draws, one over the other."""
        draw()
        self.stream.flush()
        shown = os.read(self.ours, 1 << 20).decode()
        lines = BAR.findall(shown)
        assert "".join(lines) == shown
        return [line.strip("\r").removesuffix("\x1b[J") for line in lines]


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.stream.close()
    os.close(made.ours)


def test_the_bar_fits_every_width_and_follows_a_resized_window(terminal: Terminal) -> None:
    terminal.resize(100)
    bar = TerminalBar(12_345, terminal.stream)
    with contextlib.ExitStack() as ending:
        ending.callback(bar.close)
        os.read(terminal.ours, 1 << 20)
        bar.failed, bar.limit = 3, "decoding"
        bar.go_to(50)
        bar.refresh()
        os.read(terminal.ours, 1 << 20)
        whole = r"50/12,345 .* [\d.,]+ images/s, .+ left, 3 failed, decoding limits"
        for columns, pattern in [
            (100, whole),
            (62, r"50/12,345 .* [\d.,]+ images/s, .+ left, 3 failed"),
            (40, r"50/12,345 \S* *[\d.,]+/s, 3 failed"),
            (28, r"50/12,345 \S* *3 failed"),
            (12, r"50/12,345"),
            (100, whole),
        ]:
            terminal.resize(columns)
            (line,) = terminal.drawn(bar.refresh)
            assert re.fullmatch(pattern, line.strip()), (columns, line)
            assert len(line) < columns
    assert not what_stays(os.read(terminal.ours, 1 << 20).decode())


def test_at_any_width_the_bar_stays_on_one_line(terminal: Terminal) -> None:
    terminal.resize(80)
    bar = TerminalBar(7, terminal.stream)
    os.read(terminal.ours, 1 << 20)
    for columns in range(8, 130):
        terminal.resize(columns)
        (line,) = terminal.drawn(bar.refresh)
        assert len(line) < columns
        assert line.strip().startswith("0/7")
    bar.close()


@pytest.mark.long
@pytest.mark.parametrize(("columns", "bars"), [(40, False), (100, True)])
def test_a_run_shows_a_bar_for_each_class_where_there_is_room(
    columns: int, bars: bool, images: Path, tmp_path: Path
) -> None:
    line = command("segment", images, *SMALL, "--write", "masks")
    text = on_a_terminal(line, columns, cwd=tmp_path, environment={})
    assert is_painted(text)
    shown = what_stays(text)
    assert bool(BOXES.search(shown)) == bars
    rows = re.findall(r"(__background__|person|cat|diningtable|bottle)\W+\d+\W+[\d,]+\W+([\d.]+)%(.*)", shown)
    assert len(rows) > 2
    shares = [float(share) for _, share, _ in rows]
    assert shares == sorted(shares, reverse=True)
    lengths = [len(re.findall("[\u2588-\u258f]", rest)) for *_, rest in rows]
    if not bars:
        assert not any(lengths)
        assert max(len(line) for line in shown.splitlines() if not line.startswith("fcn: ")) <= columns
        return
    # The largest class has the longest bar, and the others are in proportion to it.
    for share, length in zip(shares, lengths, strict=True):
        assert abs(length - lengths[0] * share / shares[0]) <= 1


@pytest.mark.long
def test_failures_are_in_the_bar_and_messages_do_not_break_it(
    make_images: MakeImages, tmp_path: Path
) -> None:
    made = make_images(["a.png", "b.png", "d.png"])
    (made / "c.png").write_bytes(b"no image")
    text = on_a_terminal(command("segment", "made", *SMALL, "-v"), 90, cwd=tmp_path, environment={}, code=1)
    assert any("1 failed" in drawn for drawn in BAR.findall(text))
    kept = what_stays(text)
    assert "\x1b" not in kept
    for name in ("a", "b", "d"):
        assert re.search(rf"^fcn: made/{name}\.png: done", kept, re.MULTILINE)

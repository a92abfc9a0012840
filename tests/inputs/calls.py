"""What tests call in processes of their own, which import no more than this."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator


def answers() -> Iterator[int]:
    yield os.getpid()


def waits() -> Iterator[int]:
    time.sleep(60)
    yield 0


def dies() -> Iterator[int]:
    os.kill(os.getpid(), signal.SIGKILL)
    yield 0

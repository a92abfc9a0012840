"""What tests call in processes of their own, which import no more than this."""

from __future__ import annotations

import os
import signal
import time

import numpy as np

from fcn_cli.inputs.shared_pixels import Allocate, Pixels

Answered = tuple[int, Pixels | None]


def answers(_: Allocate) -> Answered:
    return os.getpid(), None


def waits(_: Allocate) -> Answered:
    time.sleep(60)
    return 0, None


def dies(_: Allocate) -> Answered:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0, None


def paints(value: int, height: int, width: int, allocate: Allocate) -> Answered:
    pixels = allocate((height, width, 3))
    pixels[:] = np.uint8(value)
    return os.getpid(), pixels

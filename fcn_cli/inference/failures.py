"""What the network may fail of, photo by photo."""

from __future__ import annotations

from ..common.errors import Failure, FailureKind


def out_of_memory(shape: tuple[int, ...]) -> Failure:
    """Return the failure of a photo for whose input, of shape (h, w, 3), there is too little memory."""
    return Failure(
        FailureKind.OUT_OF_MEMORY,
        f"the network has not enough memory for an input of {shape[1]}x{shape[0]}; "
        "give a smaller --resize or --tile",
    )


def not_finite(precision: str) -> Failure:
    """Return the failure of a photo whose logits are not finite in a precision."""
    way_out = (
        "float16 may be too narrow for these weights, try --precision fp32"
        if precision == "fp16"
        else "the weights are at fault, not the photo"
    )
    return Failure(
        FailureKind.NOT_FINITE,
        f"the network's logits are not finite (NaN or infinity), so no class can be predicted; {way_out}",
    )

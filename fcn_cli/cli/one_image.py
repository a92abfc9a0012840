"""``fcn segment IMAGE -o cat.png`` or ``-o -``: one image from a file or stdin, one PNG."""

from __future__ import annotations

import contextlib
import glob
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..common import files, limits, store_urls
from ..common.errors import ExitCode, FailureKind, ImageError, NothingFound, OutputLost, RequestError
from ..common.output_layout import CUTOUT, GEOTIFF, LOGITS, find_output_type
from ..common.swept_directory import SweptDirectory
from . import values
from .command_line import given_besides
from .console import print_message

if TYPE_CHECKING:
    from ..inputs.discovery import Source
    from ..outputs.looks import LookRequest
    from ..runs.observers import RunObserver
    from ..runs.request import PredictionRequest

STREAM = "-"
"""As input it is stdin, as output stdout."""

# The parameters of `fcn segment` that mean something for one image. An option that is not here is refused
# beside `-o -`; an option that shapes label maps or pictures belongs here.
_PARAMETERS = frozenset(
    {
        *("inputs", "output", "write", "palette", "opacity", "legend", "cutout", "crop", "background"),
        *("backbone", "weights", "class_names", "network_card", "offline", "resize", "min_confidence"),
        "map",
        "min_region",
        *("tile", "overlap", "scales", "flip", "stretch", "alpha"),
        *("device", "threads", "kernels", "precision", "batch_size", "workers"),
        *("max_image_pixels", "decode_timeout", "log_file", "quiet", "verbose"),
    }
)
_DEFAULT_TYPE = "masks"


def is_asked_for(context: Any, inputs: Sequence[str], output: str) -> bool:
    """Say whether a command line asks for one PNG, in a file or on stdout.

    Raises
    ------
    RequestError
        It does, but not in a way that makes sense.
    """
    file = values.image_file(output)
    if output != STREAM and file is None:
        if STREAM in inputs:
            raise RequestError(
                "'-' reads one image from stdin: add -o - or -o NAME.png for its PNG (for a list of "
                "names on stdin, use --files-from -)"
            )
        return False
    if other := given_besides(context, _PARAMETERS):
        place = "to stdout" if file is None else "into that file"
        raise RequestError(
            f"{other} cannot be used with -o {output}, which writes one PNG {place}; leave it out"
        )
    if len(inputs) != 1:
        raise RequestError(
            f"-o {output} takes exactly one image, a file or '-' for stdin, not {len(inputs) or 'none'}; for "
            f"several, name an output directory{'' if file is None else f' ({output}/ is one)'}"
        )
    if file is not None and _is_file(inputs[0], file):
        raise RequestError(f"-o {output}: is the input itself; name another file")
    return True


def _is_file(given: str, file: str) -> bool:
    with contextlib.suppress(OSError, ValueError):
        own = os.fstat(sys.stdin.fileno()) if given == STREAM else os.stat(store_urls.local_path(given))
        return os.path.samestat(own, os.stat(file))
    return False


def chosen_type(types: Sequence[str] | None, *, cutout: bool) -> str:
    """Return the one output type to write; RequestError when several are asked for."""
    if cutout:
        types = tuple({*(types or ()), CUTOUT})
    if types is None:
        return _DEFAULT_TYPE
    if len(types) > 1:
        raise RequestError(
            f"-o writes one PNG, not {len(types)} ({', '.join(types)}); give one output type in --write"
        )
    if types[0] in {GEOTIFF, LOGITS}:
        raise RequestError(f"{types[0]} cannot be written as one PNG; give an output directory")
    return types[0]


def segment_one(
    given: str,
    output: str,
    output_type: str,
    look: LookRequest,
    prediction: PredictionRequest,
    observer: RunObserver,
) -> None:
    """Segment one image and write its PNG, whole or not at all.

    Raises
    ------
    RequestError
        The input is no single file, or stdin or stdout is a terminal.
    OutputLost
        The file cannot be written.
    typer.Exit
        The image cannot be segmented.
    """
    from ..runs import one_image

    _check_streams(given, output)
    name = "stdin"
    try:
        with _opened(given, output, prediction.decoding.max_pixels) as source:
            name = source.given
            permissions = (
                files.permissions_of(source.path) if find_output_type(output_type).shows_image else None
            )
            data = one_image.segment_one(
                one_image.OneImageRequest(source, output_type, look, prediction), observer
            )
    except ImageError as error:
        print_message(f"nothing is written for {name}: {error}")
        raise typer.Exit(ExitCode.SOME_FAILED) from None
    if output == STREAM:
        sys.stdout.buffer.write(data)
        return
    with OutputLost.when_refused(output):
        files.write_bytes(Path(output), data, permissions)


def _check_streams(given: str, output: str) -> None:
    if sys.__stdout__ is None and output == STREAM:
        raise RequestError("-o -: stdout is closed")
    if output == STREAM and sys.stdout.isatty():
        raise RequestError(
            "-o -: stdout is a terminal, and a PNG is binary; redirect it (> mask.png), or name an output "
            "directory"
        )
    if given == STREAM and sys.stdin.isatty():
        raise RequestError("'-': stdin is a terminal; pipe an image into fcn, or name a file")


@contextlib.contextmanager
def _opened(given: str, output: str, max_pixels: int) -> Iterator[Source]:
    """Yield the image as a file: what comes through stdin is copied into a temporary one."""
    from ..inputs.discovery import InputRequest, Source, discover

    if given == STREAM:
        with SweptDirectory() as folder:
            path = Path(folder.path, "stdin")
            with OutputLost.when_refused(path), path.open("wb") as file:
                for data in _stdin(max_pixels):
                    file.write(data)
            status = path.stat()
            yield Source("stdin", str(path), "stdin", "stdin.png", status.st_size, status.st_mtime_ns)
        return
    several = RequestError(f"{given}: -o {output} takes one image file, not a directory or a pattern")
    is_pattern = glob.has_magic(given) and not store_urls.is_url(given) and not os.path.lexists(given)
    if is_pattern or (given and os.path.isdir(given)):
        raise several
    found = discover(InputRequest((given,)))
    if len(found.sources) > 1:
        # Only its store knows what a URL is.
        raise several
    if not found.sources:
        raise NothingFound("; ".join(filter(None, ["no images found", found.ignored_text()])))
    yield found.sources[0]


def _stdin(max_pixels: int) -> Iterator[bytes]:
    """Yield what comes through stdin, up to what an image of the largest allowed size can take."""
    from ..inputs import formats

    limit, count = limits.most_bytes(max_pixels), 0
    while True:
        try:
            data = sys.stdin.buffer.read(1 << 20)
        except OSError as error:
            raise ImageError(FailureKind.UNREADABLE, f"cannot be read ({error.strerror or error})") from None
        count += len(data)
        if count > limit:
            formats.refuse_pixels(f"an image of more than {limit >> 20} MiB", max_pixels)
        if not data:
            return
        yield data

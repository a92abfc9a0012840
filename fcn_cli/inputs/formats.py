"""Which image formats are read, under which suffixes, and why others are not."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import importlib.util
import os
from typing import TYPE_CHECKING, BinaryIO

from PIL import Image, UnidentifiedImageError, features

from ..common.errors import FailureKind, ImageError

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

HEIF_SUFFIXES = (".heic", ".heif", ".heics", ".heifs", ".hif")
HEIF_HINT = "install the extra: pip install 'fcn-cli[heif]'"

# Raster formats that Pillow decodes itself and whose first bytes tell them: tried on any file, in this order.
# Most photos are in the first five, which Pillow imports first.
_COMMON = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
}
_SIGNED = {
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpx", ".jpf"),
    "DIB": (".dib",),
    "BLP": (".blp",),
    "DCX": (".dcx",),
    "DDS": (".dds",),
    "FITS": (".fit", ".fits"),
    "FLI": (".fli", ".flc"),
    "FTEX": (".ftc", ".ftu"),
    "ICNS": (".icns",),
    "ICO": (".ico",),
    "MCIDAS": (),
    "MSP": (".msp",),
    "PCD": (".pcd",),
    "PIXAR": (".pxr",),
    "PSD": (".psd",),
    "QOI": (".qoi",),
    "SUN": (".ras",),
    "XPM": (".xpm",),
    "XVTHUMB": (),
}
# Without a signature (XBM is C source): tried only under their own suffix, or a text might be "an image".
_UNSIGNED = {
    "TGA": (".tga", ".icb", ".vda", ".vst"),
    "IM": (".im",),
    "XBM": (".xbm",),
}
# A signature of a byte or two, which a TGA's header can have by chance: tried last.
_WEAKLY_SIGNED = {
    "CUR": (".cur",),
    "GBR": (".gbr",),
    "PCX": (".pcx",),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
}
_FORMATS = _COMMON | _SIGNED | _UNSIGNED | _WEAKLY_SIGNED
_OPTIONAL_FEATURES = {"AVIF": "avif", "WEBP": "webp", "JPEG2000": "jpg_2000"}

KNOWN_SUFFIXES = frozenset(suffix for suffixes in _FORMATS.values() for suffix in suffixes).union(
    HEIF_SUFFIXES
)
"""The lower-case suffixes of every format in the tables, whether this machine can decode it or not."""

_VECTOR = "vector graphics, which Pillow would start Ghostscript to draw"
_WINDOWS_VECTOR = "vector graphics, which only Windows can draw"
_STUB = "measurements, which Pillow recognizes but leaves to other software to decode"
_VIDEO = "video, which Pillow recognizes but does not decode"
_OLE = "decoded by another package (olefile), not by Pillow itself"
_WRITE_ONLY = "Pillow writes this format but does not read it"

NOT_TAKEN = {
    ".eps": _VECTOR,
    ".ps": _VECTOR,
    ".emf": _WINDOWS_VECTOR,
    ".wmf": _WINDOWS_VECTOR,
    ".bufr": _STUB,
    ".grib": _STUB,
    ".h5": _STUB,
    ".hdf": _STUB,
    ".iim": "records around a file in any format that Pillow knows, PostScript too",
    ".mpeg": _VIDEO,
    ".mpg": _VIDEO,
    ".fpx": _OLE,
    ".mic": _OLE,
    ".palm": _WRITE_ONLY,
    ".pdf": _WRITE_ONLY,
}
"""Suffixes that Pillow registers and that are not taken, with the reason."""

# ISO 23008-12: brands of HEVC pictures; the last two say only "a picture", which AVIF files say as well.
_HEVC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_ANY_BRANDS = frozenset({b"mif1", b"msf1"})

_one_thread = False


def photo_suffixes() -> frozenset[str]:
    """Return the lower-case suffixes of the formats that can be decoded on this machine."""
    missing = {name for name, feature in _OPTIONAL_FEATURES.items() if not features.check(feature)}
    suffixes = [suffix for name in _FORMATS.keys() - missing for suffix in _FORMATS[name]]
    return frozenset(suffixes).union(HEIF_SUFFIXES if _has_heif() else ())


def open_image(file: BinaryIO, path: str | os.PathLike[str] = "") -> ImageFile:
    """Identify an image by its content, and read its header.

    Parameters
    ----------
    file
        The image, from its beginning.
    path
        Its name: formats without a signature are tried only under their own suffix.

    Raises
    ------
    UnidentifiedImageError
        It is in none of the formats.
    ImageError
        It is in a format for which a package is missing.
    Exception
        Whatever a decoder raises on a broken header.
    """
    brand = _brand(file)
    if brand in _HEVC_BRANDS:
        return _open_heif(file)
    with contextlib.suppress(UnidentifiedImageError):
        return Image.open(file, formats=tuple(_COMMON))
    try:
        return Image.open(file, formats=_rarer(os.path.splitext(os.fspath(path))[1].lower()))
    except UnidentifiedImageError:
        if brand in _ANY_BRANDS:
            return _open_heif(file)
        raise


def why_not(path: str | os.PathLike[str]) -> str:
    """Return why a file that is no image in a format we take may be one all the same, or nothing."""
    suffix = os.path.splitext(os.fspath(path))[1].lower()
    return f"{suffix}: {NOT_TAKEN[suffix]}" if suffix in NOT_TAKEN else ""


def note_on_frames(opened: Image.Image) -> str | None:
    """Say which picture of several in a file is taken, or nothing where there is one."""
    if opened.format == "PSD":
        # Its "frames" are layers; what Pillow loads is the picture that they make together.
        return None
    sizes = opened.info.get("sizes")
    if opened.format in {"ICO", "ICNS"} and sizes is not None:
        return f"largest of {len(sizes)} sizes" if len(sizes) > 1 else None
    try:
        frames = int(getattr(opened, "n_frames", 1))
    except Exception:  # noqa: BLE001 - a broken later frame does not concern the first
        return None
    if frames <= 1:
        return None
    return f"main picture of {frames}" if opened.format == "HEIF" else f"first of {frames} frames"


def prepare_process() -> None:
    """Keep native decoders quiet and single-threaded, in a process that does nothing but our work.

    What libtiff prints has no image's name, and what counts of it becomes a failure. Where libtiff cannot be
    reached (it is linked into Pillow on Windows), it goes on printing.
    """
    global _one_thread  # as the libraries' own switches
    _one_thread = True
    spec = importlib.util.find_spec("PIL._imaging")
    if spec is None or spec.origin is None:
        return
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(spec.origin)
        for name in ("ErrorHandler", "ErrorHandlerExt", "WarningHandler", "WarningHandlerExt"):
            set_handler = getattr(library, f"TIFFSet{name}")
            set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            set_handler(None)


def _brand(file: BinaryIO) -> bytes:
    """Return the brand of a file of ISO's base media format, or nothing."""
    head = file.read(12)
    file.seek(0)
    return head[8:12] if head[4:8] == b"ftyp" else b""


@functools.cache
def _rarer(suffix: str) -> tuple[str, ...]:
    Image.init()
    unsigned = [name for name, suffixes in _UNSIGNED.items() if suffix in suffixes]
    names = [*_SIGNED, *unsigned, *_WEAKLY_SIGNED]
    # A later Pillow may have dropped one.
    return tuple(name for name in names if name in Image.OPEN)


def _has_heif() -> bool:
    return importlib.util.find_spec("pillow_heif") is not None


def _open_heif(file: BinaryIO) -> ImageFile:
    try:
        pillow_heif = importlib.import_module("pillow_heif")
    except ImportError as error:
        reason = HEIF_HINT if not _has_heif() else f"pillow-heif cannot be imported ({error})"
        raise ImageError(FailureKind.NO_DECODER, f"a HEIC photo; {reason}") from None
    if _one_thread:
        pillow_heif.options.DECODE_THREADS = 1
    file.seek(0)
    # Not through Pillow's registry: other code in this process may not want another format in it.
    opened: ImageFile = pillow_heif.HeifImageFile(file)
    return opened

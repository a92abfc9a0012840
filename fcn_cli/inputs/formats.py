"""The image formats that are read, their suffixes, and why others are not read."""

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
from . import other_formats, tiff
from .samples import BY_THE_FILE, Rendering

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

HEIF_SUFFIXES = (".heic", ".heif", ".heics", ".heifs", ".hif")
HEIF_HINT = "install the extra: pip install 'fcn-cli[heif]'"

# Raster formats that Pillow decodes itself and recognises by a signature: tried on any file, in this order.
# Most photos have one of the first five, which Pillow imports first.
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
# Formats without a signature (XBM is C source): tried only for their own suffixes, or a text file might be
# taken for an image.
_UNSIGNED = {
    "TGA": (".tga", ".icb", ".vda", ".vst"),
    "IM": (".im",),
    "XBM": (".xbm",),
}
# Signatures of one or two bytes, which a TGA header can contain by chance: tried last.
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
"""The lower-case suffixes of all formats in the tables, whether this machine can decode them or not."""

_VECTOR = "vector graphics, for which Pillow would run Ghostscript"
_WINDOWS_VECTOR = "vector graphics, which can be rendered on Windows only"
_STUB = "scientific data, which Pillow recognizes but cannot decode by itself"
_VIDEO = "video, which Pillow recognizes but does not decode"
_OLE = "needs another package (olefile), Pillow alone cannot decode it"
_WRITE_ONLY = "Pillow writes this format but does not read it"

UNSUPPORTED = {
    ".eps": _VECTOR,
    ".ps": _VECTOR,
    ".emf": _WINDOWS_VECTOR,
    ".wmf": _WINDOWS_VECTOR,
    ".bufr": _STUB,
    ".grib": _STUB,
    ".h5": _STUB,
    ".hdf": _STUB,
    ".iim": "a container for any format that Pillow knows, including PostScript",
    ".mpeg": _VIDEO,
    ".mpg": _VIDEO,
    ".fpx": _OLE,
    ".mic": _OLE,
    ".palm": _WRITE_ONLY,
    ".pdf": _WRITE_ONLY,
}
"""Suffixes that Pillow registers but that are not read here, with the reason."""

# ISO 23008-12: brands of HEVC images; the last two mean any image, and AVIF files have them as well.
_HEVC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_ANY_BRANDS = frozenset({b"mif1", b"msf1"})

_HEAD_BYTES = 16
_SNIFFED_BYTES = 1 << 20

_one_thread = False


def photo_suffixes() -> frozenset[str]:
    """Return the lower-case suffixes of the formats that can be decoded on this machine."""
    missing = {name for name, feature in _OPTIONAL_FEATURES.items() if not features.check(feature)}
    suffixes = [suffix for name in _FORMATS.keys() - missing for suffix in _FORMATS[name]]
    return frozenset(suffixes).union(HEIF_SUFFIXES if _has_heif() else ())


def open_image(
    file: BinaryIO, path: str | os.PathLike[str] = "", rendering: Rendering = BY_THE_FILE
) -> ImageFile:
    """Identify an image by its content and read its header.

    Parameters
    ----------
    file
        The image, open at its beginning.
    path
        Its name: formats without a signature are tried only for their own suffixes.
    rendering
        How its samples are to become RGB.

    Raises
    ------
    UnidentifiedImageError
        The image has none of the formats.
    ImageError
        The package for its format is missing.
    Exception
        Anything that a decoder raises on a broken header.
    """
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    brand = _brand(head)
    if brand in _HEVC_BRANDS:
        return _open_heif(file)
    if head.startswith(tiff.PREFIXES):
        return tiff.open_tiff(file, rendering)
    with contextlib.suppress(UnidentifiedImageError):
        return Image.open(file, formats=tuple(_COMMON))
    try:
        return Image.open(file, formats=_other_formats(os.path.splitext(os.fspath(path))[1].lower()))
    except UnidentifiedImageError:
        if brand in _ANY_BRANDS:
            return _open_heif(file)
        file.seek(0)
        if name := other_formats.name_of(file.read(_SNIFFED_BYTES)):
            raise ImageError(FailureKind.NOT_AN_IMAGE, name) from None
        raise


def why_not(path: str | os.PathLike[str]) -> str:
    """Return why the format that a file's suffix stands for is not supported, or an empty string."""
    suffix = os.path.splitext(os.fspath(path))[1].lower()
    return f"{suffix}: {UNSUPPORTED[suffix]}" if suffix in UNSUPPORTED else ""


def note_on_frames(opened: Image.Image) -> str | None:
    """Return which of several images in a file is used, or None if there is only one."""
    if isinstance(opened, tiff.Tiff) and opened.which is not None:
        return opened.which
    if opened.format == "PSD":
        # Its "frames" are layers; Pillow loads the merged image.
        return None
    sizes = opened.info.get("sizes")
    if opened.format in {"ICO", "ICNS"} and sizes is not None:
        return f"largest of {len(sizes)} sizes" if len(sizes) > 1 else None
    try:
        frames = int(getattr(opened, "n_frames", 1))
    except Exception:  # noqa: BLE001 - a broken later frame does not affect the first
        return None
    if frames <= 1:
        return None
    return f"main picture of {frames}" if opened.format == "HEIF" else f"first of {frames} frames"


def prepare_process() -> None:
    """Silence native decoders and limit them to one thread, in a process of our own.

    libtiff's messages do not name the image, and those that matter become failures anyway. Where libtiff's
    functions cannot be accessed (on Windows it is linked into Pillow), it still prints.
    """
    global _one_thread  # global, like the settings of the libraries
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


def _brand(head: bytes) -> bytes:
    """Return the brand of a file in ISO base media format, else empty bytes."""
    return head[8:12] if head[4:8] == b"ftyp" else b""


@functools.cache
def _other_formats(suffix: str) -> tuple[str, ...]:
    Image.init()
    unsigned = [name for name, suffixes in _UNSIGNED.items() if suffix in suffixes]
    names = [*_SIGNED, *unsigned, *_WEAKLY_SIGNED]
    # A later version of Pillow may have dropped a format.
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
    # Do not register the format with Pillow: that would affect other code in this process.
    opened: ImageFile = pillow_heif.HeifImageFile(file)
    return opened

"""Supported image formats and their suffixes; why other files are not supported."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import importlib
import importlib.util
import os
import re
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from PIL import Image, UnidentifiedImageError, features

from ..common.errors import Failure, FailureKind, ImageError
from ..common.wording import counted
from . import jpeg, tiff
from .samples import BY_THE_FILE, Rendering

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

HEIF_SUFFIXES = (".heic", ".heif", ".heics", ".heifs", ".hif")
HEIF_HINT = "install the extra: pip install 'fcn-cli[heif]'"

# Raster formats that Pillow decodes itself and recognises by a signature: tried on any file, in this order.
# Most images have one of the first five, which Pillow imports first.
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


def image_suffixes() -> frozenset[str]:
    """Return the lower-case suffixes of the formats that can be decoded on this machine."""
    missing = {name for name, feature in _OPTIONAL_FEATURES.items() if not features.check(feature)}
    suffixes = [suffix for name in _FORMATS.keys() - missing for suffix in _FORMATS[name]]
    return frozenset(suffixes).union(HEIF_SUFFIXES if _has_heif() else ())


def open_image(
    file: BinaryIO, path: str | os.PathLike[str] = "", rendering: Rendering = BY_THE_FILE
) -> ImageFile:
    """Identify an image, open at its beginning, by its content, and read its header.

    Formats without a signature are tried only for their own suffixes, by `path`. Raises ImageError for what
    is known not to be read, and whatever a decoder raises on a broken header.
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
        if name := _name_of(file.read(_SNIFFED_BYTES)):
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


@functools.cache
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
        raise ImageError(FailureKind.NO_DECODER, f"a HEIC image; {reason}") from None
    if _one_thread:
        pillow_heif.options.DECODE_THREADS = 1
    file.seek(0)
    # Do not register the format with Pillow: that would affect other code in this process.
    opened: ImageFile = pillow_heif.HeifImageFile(file)
    return opened


# By their first bytes; ISO base media files have their brand at byte 8.
_SIGNATURES: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), text)
    for pattern, text in (
        (
            rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n",
            "a JPEG XL image, which is not supported: convert it to PNG or JPEG, for example with djxl",
        ),
        (
            rb"II\xbc\x01",
            "a JPEG XR image, which is not supported: convert it to PNG, for example with JxrDecApp",
        ),
        (
            rb"\xff\xd8\xff\xf7",
            "a JPEG-LS image, which is not supported: convert it to PNG, for example with ffmpeg",
        ),
        (
            rb"v/1\x01",
            "an OpenEXR image, which is not supported: convert it to TIFF or PNG, for example with oiiotool",
        ),
        (
            rb"#\?(RADIANCE|RGBE)",
            "a Radiance HDR image, which is not supported: convert it to TIFF or PNG, for example with "
            "oiiotool",
        ),
        (
            rb".{128}DICM",
            "a DICOM file, which is not supported: convert it to PNG, for example with dcmj2pnm",
        ),
        (
            rb"gimp xcf",
            "a GIMP project (XCF), which is not supported: export it to PNG from GIMP",
        ),
        (
            rb"%PDF-",
            "a PDF, which is not supported: make images of its pages, for example with pdftoppm -png",
        ),
        (
            rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg[\s>]",
            "an SVG drawing, which is not supported: render it to PNG, for example with rsvg-convert",
        ),
        (
            rb"(?i:\s*(<!doctype html|<html))",
            "a web page (HTML), not an image: the download may have failed, fetch it again",
        ),
        (
            rb"version https://git-lfs\.github\.com/",
            "a Git LFS pointer, not the image itself: run git lfs pull",
        ),
        (rb"PK\x03\x04", "a ZIP archive: unpack it first"),
        (rb"\0*$", "nothing but zero bytes: its content was lost, fetch or copy the image again"),
        (rb"....ftypcrx ", tiff.raw_message("CR3")),
        (rb"FUJIFILMCCD-RAW", tiff.raw_message("RAF")),
        (rb"IIR[OS]|MMOR", tiff.raw_message("ORF")),
        (rb"IIU\0", tiff.raw_message("RW2")),
        (rb"FOVb", tiff.raw_message("X3F")),
        (
            rb"....ftyp(isom|iso[2-6]|mp4[12]|qt  |M4V |avc1|3gp.)",
            "a video, which is not supported: make images of its frames, for example with ffmpeg",
        ),
    )
)


def _name_of(head: bytes) -> str:
    """Return what a file is and the way out, by its first bytes; an empty string where it is unknown."""
    for pattern, text in _SIGNATURES:
        if pattern.match(head):
            return text
    return _jpeg_variant(head) if head.startswith(b"\xff\xd8\xff") else ""


def _jpeg_variant(head: bytes) -> str:
    variants: tuple[tuple[Callable[[int, int], bool], str], ...] = (
        (lambda marker, _: marker in jpeg.LOSSLESS, "a lossless JPEG"),
        (lambda marker, _: marker in jpeg.HIERARCHICAL, "a hierarchical JPEG"),
        (lambda _, bits: bits != 8, "a JPEG of {bits} bits a sample"),
    )
    try:
        for marker, start, _ in jpeg.segments(head):
            if marker in jpeg.FRAMES:
                bits = head[start]
                for fits, name in variants:
                    if fits(marker, bits):
                        return (
                            f"{name.format(bits=bits)}, which is not supported: convert it to 8 bits, for "
                            "example with ImageMagick or djpeg of libjpeg-turbo 3"
                        )
    except EOFError:
        pass
    return ""


_TOO_SHORT = re.compile(r"truncated|not enough image data|unexpected end of file", re.IGNORECASE)


def refuse(error: Exception, path: str | os.PathLike[str], max_pixels: int) -> NoReturn:
    """Raise the ImageError for an exception that was raised while an image was opened or decoded."""
    text = " ".join(str(error).split()) or type(error).__name__
    match error:
        case FileNotFoundError():
            kind, message = FailureKind.NOT_FOUND, "no such file (or a broken link)"
        case UnidentifiedImageError():
            reason = why_not(path)
            kind = FailureKind.NOT_AN_IMAGE
            message = f"not an image in a supported format or variant{f' ({reason})' if reason else ''}"
        case Image.DecompressionBombError():
            claimed = re.search(r"\d+ pixels", text)
            refuse_pixels(claimed[0] if claimed else "an image in the file", max_pixels)
        case MemoryError():
            raise ImageError.of(out_of_memory()) from error
        case OSError(errno=errno.EINVAL, filename=None):
            # A decoder has tried to seek to before the beginning of a short file.
            kind, message = FailureKind.TRUNCATED, "the file ends too early"
        case OSError(errno=int()):
            kind, message = FailureKind.UNREADABLE, f"cannot be read ({error.strerror})"
        case _ if _TOO_SHORT.search(text) or isinstance(error, EOFError | struct.error | IndexError):
            kind, message = FailureKind.TRUNCATED, f"the file ends too early ({text})"
        case _:
            kind, message = FailureKind.BROKEN, f"cannot be decoded ({text})"
    raise ImageError(kind, message) from error


def out_of_memory() -> Failure:
    """Return the failure of an image that takes more memory than its process may."""
    return Failure(FailureKind.OUT_OF_MEMORY, "not enough memory to decode it")


def refuse_pixels(size: str, max_pixels: int) -> NoReturn:
    """Raise the ImageError for an image with too many pixels."""
    raise ImageError(
        FailureKind.TOO_MANY_PIXELS,
        f"{size} is more than {counted(max_pixels, 'pixel')}; if that is intended, raise --max-image-pixels",
        max_pixels,
    )

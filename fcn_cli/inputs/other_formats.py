"""Files that are no image for us, told by their content: what they are and the way out, in one line."""

from __future__ import annotations

import re
from collections.abc import Callable

from . import jpeg, tiff

# By their first bytes; ISO base media files have their brand at byte 8.
_SIGNATURES: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), text)
    for pattern, text in (
        (
            rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n",
            "a JPEG XL image, which is not read: convert it to PNG or JPEG, for example with djxl",
        ),
        (
            rb"II\xbc\x01",
            "a JPEG XR image, which is not read: convert it to PNG, for example with JxrDecApp",
        ),
        (
            rb"\xff\xd8\xff\xf7",
            "a JPEG-LS image, which is not read: convert it to PNG, for example with ffmpeg",
        ),
        (
            rb"v/1\x01",
            "an OpenEXR image, which is not read: convert it to TIFF or PNG, for example with oiiotool",
        ),
        (
            rb"#\?(RADIANCE|RGBE)",
            "a Radiance HDR image, which is not read: convert it to TIFF or PNG, for example with oiiotool",
        ),
        (
            rb".{128}DICM",
            "a DICOM file, which is not read: convert it to PNG, for example with dcmj2pnm",
        ),
        (
            rb"gimp xcf",
            "a GIMP project (XCF), which is not read: export it to PNG from GIMP",
        ),
        (
            rb"%PDF-",
            "a PDF, which is not read: make images of its pages, for example with pdftoppm -png",
        ),
        (
            rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg[\s>]",
            "an SVG drawing, which is not read: render it to PNG, for example with rsvg-convert",
        ),
        (
            rb"(?i:\s*(<!doctype html|<html))",
            "a web page (HTML) and no image: a download may have failed, fetch the image again",
        ),
        (
            rb"version https://git-lfs\.github\.com/",
            "a Git LFS pointer and not the image itself: run git lfs pull",
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
            "a video, which is not read: make images of its frames, for example with ffmpeg",
        ),
    )
)


def name_of(head: bytes) -> str:
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
                            f"{name.format(bits=bits)}, which is not read: convert it to 8 bits, for example "
                            "with ImageMagick or djpeg of libjpeg-turbo 3"
                        )
    except EOFError:
        pass
    return ""

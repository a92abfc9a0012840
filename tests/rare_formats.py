"""Small images in the rarer formats, by encoders of our own where Pillow only reads a format."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


class Rare(NamedTuple):
    """A file's suffix and bytes, and the RGB pixels that it stands for."""

    suffix: str
    data: bytes
    expected: Pixels


def grey(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("L"))


def as_rgb(values: Pixels) -> Pixels:
    return np.repeat(values[..., None], 3, axis=2)


def cursor(rgb: Pixels) -> bytes:
    height, width = rgb.shape[:2]
    gap = bytes(-3 * width % 4)
    rows = b"".join(row[:, ::-1].tobytes() + gap for row in rgb[::-1])
    mask = bytes((width + 31) // 32 * 4 * height)
    dib = struct.pack("<IiiHHIIiiII", 40, width, 2 * height, 1, 24, 0, len(rows), 0, 0, 0, 0) + rows + mask
    entry = struct.pack("<BBBBHHII", width, height, 0, 0, 0, 0, len(dib), 22)
    return struct.pack("<HHH", 0, 2, 1) + entry + dib


def fits(values: Pixels) -> bytes:
    height, width = values.shape
    cards = {"SIMPLE": "T", "BITPIX": "8", "NAXIS": "2", "NAXIS1": str(width), "NAXIS2": str(height)}
    header = "".join(f"{name:8}= {value:>20}".ljust(80) for name, value in cards.items()) + "END"
    return header.ljust(2880).encode() + values[::-1].tobytes()


def flic(values: Pixels) -> bytes:
    """Return an animation of one frame, in 256 shades of grey."""
    height, width = values.shape
    palette = struct.pack("<HBB", 1, 0, 0) + np.repeat(np.arange(256, dtype=np.uint8), 3).tobytes()
    copy = values.tobytes()
    chunks = struct.pack("<IH", 6 + len(palette), 4) + palette + struct.pack("<IH", 6 + len(copy), 16) + copy
    frame = struct.pack("<IHH8x", 16 + len(chunks), 0xF1FA, 2) + chunks
    return struct.pack("<IHHHHHHI108x", 128 + len(frame), 0xAF12, 1, width, height, 8, 3, 70) + frame


def ftex(rgb: Pixels) -> bytes:
    height, width = rgb.shape[:2]
    return struct.pack("<4s7iI", b"FTEX", 0, width, height, 1, 1, 1, 32, rgb.size) + rgb.tobytes()


def gimp_brush(rgb: Pixels) -> bytes:
    height, width = rgb.shape[:2]
    rgba = np.dstack([rgb, np.full((height, width), 255, np.uint8)])
    return struct.pack(">5I4sI", 33, 2, width, height, 4, b"GIMP", 10) + b"name\0" + rgba.tobytes()


def mcidas(values: Pixels) -> bytes:
    words = [0] * 65
    words[2], words[9], words[10], words[11], words[14], words[34] = 4, *values.shape, 1, 1, 256
    return struct.pack(">64i", *words[1:]) + values.tobytes()


def photo_cd(values: Pixels, orientation: int = 0) -> bytes:
    """Return a Photo CD of a grey image of 768x512 pixels."""
    assert values.shape == (512, 768)
    neutral = bytes([156]) * 384 + bytes([137]) * 384
    pairs = b"".join(pair.tobytes() + neutral for pair in values.reshape(256, 2, 768))
    head = bytearray(96 * 2048)
    head[2048:2052] = b"PCD_"
    head[2048 + 1538] = orientation
    return bytes(head) + pairs


def pixar(rgb: Pixels) -> bytes:
    head = bytearray(1024)
    head[:4] = b"\x80\xe8\0\0"
    struct.pack_into("<HH4xHH", head, 416, *rgb.shape[:2], 14, 2)
    return bytes(head) + rgb.tobytes()


def photoshop(rgb: Pixels, layers: int = 0, mode: int = 3) -> bytes:
    """Return a picture with so many empty layers."""
    height, width, channels = rgb.shape
    layer = struct.pack(">4iH", 0, 0, 0, 0, 0) + bytes(12) + struct.pack(">I", 0)
    block = struct.pack(">h", layers) + layer * layers
    block = struct.pack(">I", len(block)) + block if layers else b""
    header = struct.pack(">4sH6xHIIHH", b"8BPS", 1, channels, height, width, 8, mode)
    sections = struct.pack(">III", 0, 0, len(block)) + block
    return header + sections + struct.pack(">H", 0) + np.moveaxis(rgb, 2, 0).tobytes()


def sun_raster(rgb: Pixels) -> bytes:
    height, width = rgb.shape[:2]
    gap = bytes(3 * width % 2)
    rows = b"".join(row[:, ::-1].tobytes() + gap for row in rgb)
    return struct.pack(">8I", 0x59A66A95, width, height, 24, len(rows), 1, 0, 0) + rows


def pixmap(values: Pixels) -> bytes:
    """Return an X pixmap of a grey image in 16 shades."""
    height, width = values.shape
    colors = [f'"{shade:x} c #{17 * shade:02x}{17 * shade:02x}{17 * shade:02x}"' for shade in range(16)]
    rows = ['"' + "".join(f"{value // 17:x}" for value in row) + '"' for row in values]
    strings = ",\n".join([f'"{width} {height} 16 1"', *colors, *rows])
    return f"/* XPM */\nstatic char *x[] = {{\n{strings}\n}};\n".encode()


def thumbnail(rgb: Pixels) -> bytes:
    """Return an XV thumbnail: 3 bits of red and green, 2 of blue."""
    height, width = rgb.shape[:2]
    packed = rgb[..., 0] // 32 * 32 + rgb[..., 1] // 32 * 4 + rgb[..., 2] // 64
    return b"P7 332\n#END_OF_COMMENTS\n%d %d 255\n" % (width, height) + packed.astype(np.uint8).tobytes()


def of_thumbnail(rgb: Pixels) -> Pixels:
    red, green, blue = np.moveaxis(rgb.astype(int), 2, 0)
    return np.dstack([red // 32 * 255 // 7, green // 32 * 255 // 7, blue // 64 * 85]).astype(np.uint8)


def saved(image: Image.Image, suffix: str, **options: Any) -> Rare:
    """Return what Pillow makes of an image, and the image as RGB."""
    stream = io.BytesIO()
    image.save(stream, Image.registered_extensions()[suffix], **options)
    return Rare(suffix, stream.getvalue(), np.asarray(image.convert("RGB")))


def rare_formats(image: Image.Image) -> list[Rare]:
    """Return a small image, or what a format can hold of it, in every format that is not an everyday one."""
    rgb, values = np.asarray(image), grey(image)
    shades = values // 17 * 17
    icon = image.resize((64, 64))
    pcx = saved(image, ".pcx").data
    rough = np.asarray(image.resize((768, 512)).convert("L")) // 16 * 8
    own: list[tuple[str, Callable[..., bytes], Pixels, Pixels]] = [
        (".cur", cursor, rgb, rgb),
        (".fits", fits, values, as_rgb(values)),
        (".fit", fits, values, as_rgb(values)),
        (".fli", flic, values, as_rgb(values)),
        (".flc", flic, values, as_rgb(values)),
        (".ftu", ftex, rgb, rgb),
        (".ftc", ftex, rgb, rgb),
        (".gbr", gimp_brush, rgb, rgb),
        (".psd", photoshop, rgb, rgb),
        (".pxr", pixar, rgb, rgb),
        (".ras", sun_raster, rgb, rgb),
        (".xpm", pixmap, shades, as_rgb(shades)),
        # Without a suffix of their own.
        (".png", mcidas, values, as_rgb(values)),
        (".png", thumbnail, rgb, of_thumbnail(rgb)),
    ]
    return [
        *(Rare(suffix, encode(content), expected) for suffix, encode, content, expected in own),
        Rare(".dcx", struct.pack("<III", 0x3ADE68B1, 12, 0) + pcx, rgb),
        Rare(".pcd", photo_cd(rough), np.asarray(Image.open(io.BytesIO(photo_cd(rough))))),
        saved(image.convert("P"), ".blp"),
        saved(image.convert("P"), ".blp", blp_version="BLP1"),
        saved(image, ".dds"),
        saved(image.convert("L"), ".dds"),
        saved(icon.resize((1024, 1024)), ".icns"),
        saved(icon, ".ico", sizes=[(64, 64)]),
        saved(icon, ".ico", sizes=[(64, 64)], bitmap_format="bmp"),
        saved(image, ".im"),
        saved(image.convert("1"), ".msp"),
        saved(image, ".pcx"),
        saved(image.convert("P"), ".pcx"),
        saved(image, ".qoi"),
        saved(image.convert("RGB"), ".sgi"),
        saved(image.convert("RGB"), ".rgb"),
        saved(image.convert("RGBA"), ".rgba"),
        saved(image.convert("L"), ".bw"),
        saved(image, ".tga"),
        saved(image.convert("L"), ".icb", compression="tga_rle"),
        saved(image.convert("P"), ".vda"),
        saved(image, ".vst", orientation=1),
        saved(image.convert("1"), ".xbm"),
    ]

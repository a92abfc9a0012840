"""Upper bounds of option values: more than anybody needs, less than what hangs or breaks a run."""

MOST_THREADS = 1024
MOST_WORKERS = 1024
MOST_IN_A_BATCH = 4096
LONGEST_SIDE = 16384
"""In pixels: of the network's input, and of a tile."""

MOST_PIXELS = 100_000_000_000
"""Of an image, and so of a mask."""

IMAGE_BYTES, IMAGE_BYTES_PER_PIXEL = 64 << 20, 8
"""What an image file has at most: for profiles and texts, and per pixel. No format stores more for what
becomes RGB with 8 bits, but for floating point."""

MOST_MASK_PIXELS = 500_000_000
"""Larger masks are read only where that is asked for: a small file can claim any number of pixels."""

MOST_SECONDS = 1_000_000
MOST_ROUNDS = 1_000_000
MOST_SHARDS = 10_000
"""Whoever counts or merges shards looks for each one's files."""


def most_bytes(pixels: int) -> int:
    """Return how many bytes are read at most of a file that shall be an image of so many pixels."""
    return IMAGE_BYTES + IMAGE_BYTES_PER_PIXEL * pixels

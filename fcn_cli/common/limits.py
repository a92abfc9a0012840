"""The largest numbers that users may ask for: more than helps anybody, less than hangs or breaks a run."""

MOST_THREADS = 1024
MOST_WORKERS = 1024
MOST_IN_A_BATCH = 4096
LONGEST_SIDE = 16384
"""In pixels: of the network's input, and of a tile."""

MOST_PIXELS = 100_000_000_000
"""Of an image, and so of a mask."""

MOST_SECONDS = 1_000_000
MOST_ROUNDS = 1_000_000
MOST_SHARDS = 10_000
"""Whoever counts or merges shards looks for each one's files."""

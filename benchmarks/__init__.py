"""Benchmarks of `fcn`; run one with ``python -m benchmarks.NAME``."""

"""Inference: RGB pixels to label maps on a device. Knows no files."""

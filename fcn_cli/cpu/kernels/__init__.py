"""Compiled functions: matrix products, transforms of tiles, labels from logits."""

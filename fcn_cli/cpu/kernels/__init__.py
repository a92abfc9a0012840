"""Compiled kernels: matrix products, Winograd's tile transforms, argmax."""

"""Inputs: find photos, decode and resize them, group them in batches of one shape."""

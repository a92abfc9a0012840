"""Evaluation: measures accuracy, differences and speed. Returns result objects; prints nothing."""

"""How right, how different, how fast: result objects; prints nothing."""

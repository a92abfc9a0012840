"""Models: architectures, finding and downloading weights, loading checkpoints."""

"""The networks: their architectures, their weights, and how one is filled."""

"""The output directory: a record on disk means that its files are complete."""

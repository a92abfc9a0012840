"""All about an output directory: a record on disk means that its files are whole."""

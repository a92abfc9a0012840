"""An output directory as other tools' files: one class for each format, and a factory by name."""

"""An output directory as HTML pages, and as other tools' files."""

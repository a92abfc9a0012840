"""From pixels to label maps on a device; knows no files."""

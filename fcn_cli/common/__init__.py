"""What every package may use: errors, label maps, class names, palettes, files, resources, signals."""

"""From paths to decoded, resized RGB photos in batches of one shape."""

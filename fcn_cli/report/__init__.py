"""Shows what is in an output directory, and what an evaluation found, as HTML pages."""

"""One run from request to summary: it decides, joins the other packages, and tells observers."""

"""One run from request to summary: joins the other packages, and reports to observers."""

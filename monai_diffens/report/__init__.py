"""A page for each case, an index for each run."""

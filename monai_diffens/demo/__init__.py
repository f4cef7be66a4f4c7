"""The demonstration on a template brain."""

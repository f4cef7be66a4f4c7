"""Evaluation and studies; not installed with the package."""

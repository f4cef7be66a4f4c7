"""Segmentation of what was restored."""

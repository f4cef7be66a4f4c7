"""Variants of the fusion."""

"""The forward operator of a scan, its pseudo-inverse, and slices of a volume."""

"""Diff-Ensembler for MONAI: 2D diffusion models of several planes, fused into one 3D volume at every step."""

__version__ = "0.1.0"

"""Diff-Ensembler for MONAI: 2D diffusion models of several planes, fused into one 3D volume at every step.

``super_resolve`` and ``translate`` restore scans, ``load_model`` keeps a model for many of them, and
``DiffEnsembleRestored`` does it inside of a MONAI ``Compose``; see :mod:`monai_diffens.api`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_diffens.api import DiffEnsembleRestored, Model, load_model, super_resolve, translate

__version__ = "0.1.0"
__all__ = ["DiffEnsembleRestored", "Model", "load_model", "super_resolve", "translate"]


def __getattr__(name: str) -> Any:
    """Import what is public when it is asked for: torch and MONAI take seconds."""
    if name in __all__:
        from monai_diffens import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""How thick the slices of a scan are, which its voxel grid does not tell.

Slices may be thinner than they are apart (a gap) or thicker (overlap). DICOM headers tell, and the JSON file
that dcm2niix and BIDS keep beside a NIfTI file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from monai_diffens.files import NIFTI_ENDINGS
from monai_diffens.messages import say

__all__ = ["SLICE_THICKNESS", "is_believed", "sidecar_thickness", "thickness_along", "thickness_lines"]

# meta entry: (4,) thickness in mm and the slice axis' direction in RAS+; zeros where that is not known
SLICE_THICKNESS = "slice_thickness"
BELIEVED = (0.1, 4.0)  # of the slice distance; else it is that of a slab, or a mistake
ALIKE = 0.05  # of the slice distance: less is not told
LARGEST_SIDECAR = 1 << 20  # bytes


def sidecar_thickness(scan: Path) -> float | None:
    """``SliceThickness`` in mm of the JSON file beside a NIfTI file; None where nothing usable tells it."""
    ending = next((end for end in NIFTI_ENDINGS if scan.name.lower().endswith(end)), None)
    if ending is None:
        return None
    sidecar = scan.with_name(scan.name[: -len(ending)] + ".json")
    try:
        if not sidecar.is_file() or sidecar.stat().st_size > LARGEST_SIDECAR:
            return None
        facts = json.loads(sidecar.read_text(encoding="utf-8"))
        value = float(facts["SliceThickness"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return value if 0 < value < np.inf else None


def thickness_along(axis: int, widest: int, affine: np.ndarray, meta: Mapping[str, Any]) -> float | None:
    """Thickness in mm of the slices along an axis of a volume; None where they are not stacked along it.

    Args:
        axis: 0, 1 or 2.
        widest: the axis with the widest spacing, which is the slices' where nothing tells their direction.
        affine: (4, 4), voxel index to RAS+ mm.
        meta: of the loaded scan.
    """
    if SLICE_THICKNESS not in meta:
        return None
    thickness, *normal = np.asarray(meta[SLICE_THICKNESS], dtype=float).ravel()
    if any(normal):
        axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        widest = int(np.argmax(np.abs(axes.T @ normal)))
    return float(thickness) if axis == widest else None


def is_believed(thickness: float, spacing: float) -> bool:
    """Whether a thickness can be that of slices this far apart."""
    return BELIEVED[0] <= thickness / spacing <= BELIEVED[1]


def thickness_lines(thickness: float, spacing: float) -> list[str]:
    """A line where slices are not as thick as they are apart."""
    seen = {"thickness": thickness, "spacing": spacing}
    if not is_believed(thickness, spacing):
        return [say("thickness_unbelieved", **seen)]
    if abs(thickness - spacing) <= ALIKE * spacing:
        return []
    what = "a gap" if thickness < spacing else "an overlap"
    return [say("thickness", what=what, mm=abs(thickness - spacing), **seen)]

"""Is this an MR magnitude image of a head? Checks that do not depend on the file's format."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monai_diffens.messages import InputRejected, say

__all__ = ["CT_CUT", "check_extent", "check_range"]

EXTENT_MM = (1.0, 2000.0)  # longest side of a plausible volume: outside it, the unit of length is wrong
CT_CUT, CT_FRACTION = -100.0, 0.05  # CT: air at -1000 HU fills far more than 5 % of a head scan


def check_extent(name: str, zooms: NDArray[np.floating], shape: Sequence[int]) -> None:
    """Reject a volume whose unit of length must be wrong.

    Args:
        name: of the case, for the message.
        zooms: (3,) spacing in mm.
        shape: (X, Y, Z).

    Raises:
        InputRejected: its longest side is no head's.
    """
    extent = float(np.max(zooms * np.asarray(shape)))
    if not EXTENT_MM[0] <= extent <= EXTENT_MM[1]:
        raise InputRejected(say("extent", name=name, extent=extent))


def check_range(name: str, low: float, high: float, below: float, *, force: bool = False) -> list[str]:
    """Check the range of the voxels' values.

    Args:
        name: of the case, for the message.
        low: the least value.
        high: the greatest value.
        below: fraction of the voxels below :data:`CT_CUT`.
        force: accept values that do not look like MR.

    Returns:
        Warnings, one line each.

    Raises:
        InputRejected: constant, unlike MR, or nothing above zero.
    """
    if low >= high:  # above where no voxel was finite
        raise InputRejected(say("constant", name=name, value=low if low == high else 0))
    seen = {"percent": 100 * below, "cut": CT_CUT, "low": low}
    if below >= CT_FRACTION and not force:
        raise InputRejected(say("not_mr", name=name, **seen))
    if high <= 0:  # intensities are scaled by what is above zero
        raise InputRejected(say("not_positive", name=name, high=high))
    return [say("forced", **seen)] if below >= CT_FRACTION else []

"""Fields of a NIfTI header that contradict the format: refused, or read as nibabel reads them and told.

Parts of a header that are not used decide nothing. Pure functions on headers; no voxel is read.
"""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np

from monai_diffens.messages import say

__all__ = ["check_header", "mended_fields"]

MOST_AXES = 7


def check_header(raw: nib.Nifti1Header) -> None:
    """Refuse sizes and offsets that no NIfTI file can have, and that nibabel lets pass.

    Args:
        raw: as stored, nothing mended.

    Raises:
        ValueError: the message says which field holds what.
    """
    if int(raw["sizeof_hdr"]) != raw.sizeof_hdr:
        raise ValueError(f"a header of {int(raw['sizeof_hdr'])} bytes")
    axes = int(raw["dim"][0])
    if not 1 <= axes <= MOST_AXES:
        raise ValueError(f"{axes} axes")
    sizes = [int(size) for size in raw["dim"][1 : axes + 1]]
    if min(sizes) < 1:
        raise ValueError(f"an axis of {min(sizes)} voxels")
    offset, least = float(raw["vox_offset"]), int(raw.single_vox_offset)
    if not offset >= least or offset != int(offset):
        raise ValueError(f"the voxels begin at byte {offset:g}, not at {least} or later")
    slope, inter = float(raw["scl_slope"]), float(raw["scl_inter"])
    if np.isfinite(slope) and slope != 0 and not np.isfinite(inter):
        raise ValueError(f"an intercept of {inter:g}")


def mended_fields(raw: nib.Nifti1Header, read: nib.Nifti1Header, source: str) -> list[str]:
    """Say what nibabel read otherwise than it is stored, where that can show in a result.

    Args:
        raw: as stored.
        read: as nibabel reads it.
        source: which part of the header gave the affine.
    """
    used = ["bitpix", "sform_code", "qform_code"]
    changed = [(name, raw[name].item(), read[name].item()) for name in used]
    if source != "sform":
        pairs = zip(raw["pixdim"][:4].tolist(), read["pixdim"][:4].tolist(), strict=True)
        changed += [(f"pixdim[{axis}]", was, now) for axis, (was, now) in enumerate(pairs)]
        # 0 is what many programs write for 1 here
        changed = [each for each in changed if each[0] != "pixdim[0]" or each[1] != 0]
    slope: Any = raw["scl_slope"]
    if np.isinf(slope):
        changed.append(("scl_slope", float(slope), 1.0))
    return [
        say("mended", field=name, was=f"{was:g}", now=f"{now:g}")
        for name, was, now in changed
        if was != now and not (np.isnan(was) and np.isnan(now))
    ]

"""Which images of the studies folder belong to one patient, told by their names.

``<patient>_<contrast>``, as in BIDS: ``sub-01_T1w``, ``sub-01_ce-gadolinium_T1w``, ``sub-01_FLAIR``; see
:mod:`monai_diffens.contrasts` for the other names that are read.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from monai_diffens.contrasts import CONTRASTS, contrast_of

__all__ = ["companions", "patient_and_contrast"]


def patient_and_contrast(image: str) -> tuple[str, str] | None:
    """Split an image's id into patient and contrast; None where it does not end with a known contrast."""
    told = contrast_of(Path(image))
    return None if told is None or not told[1] else (told[1], told[0])


def companions(image: str, images: Iterable[str]) -> dict[str, str]:
    """Contrast -> id for every contrast of the patient that ``image`` is of, in the order of ``CONTRASTS``.

    Empty where the name of ``image`` does not tell its patient.
    """
    known = patient_and_contrast(image)
    if known is None:
        return {}
    found = {
        named[1]: other
        for other in images
        if (named := patient_and_contrast(other)) is not None and named[0] == known[0]
    }
    found[known[1]] = image  # of two of one contrast, the one that was asked for
    return {contrast: found[contrast] for contrast in CONTRASTS if contrast in found}

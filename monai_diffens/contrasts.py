"""Which contrast a file shows, by its name: BIDS entities in any order, or the names of the BraTS data.

BIDS names are ``key-value`` entities joined by ``_``, then the contrast: ``sub-01_ce-gadolinium_run-1_T1w``.
BraTS names end with the contrast behind ``-`` or ``_``: ``BraTS-GLI-00001-000-t1n``, ``case_t1gd``. Upper and
lower case count as one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from monai_diffens.files import case_name

ENHANCED = "ce-gadolinium_T1w"
CONTRASTS = ("T1w", ENHANCED, "T2w", "FLAIR")  # conditions of a translation, in their order
TARGET = CONTRASTS[-1]  # what is made of them unless another one is asked for
# how a name may end, and the contrast that the models call so
SUFFIXES = {
    "t1w": "T1w",
    "t2w": "T2w",
    "flair": "FLAIR",
    "t1": "T1w",
    "t1n": "T1w",
    "t1ce": ENHANCED,
    "t1gd": ENHANCED,
    "t1c": ENHANCED,
    "t2": "T2w",
    "t2f": "FLAIR",
}
# entities of BIDS for anatomical images: what stands behind these keys is never the contrast
ENTITIES = (
    "sub ses sample acq task ce trc stain rec dir run echo inv mt part proc hemi space split chunk".split()
)
ENTITIES += ["recording", "res", "den", "label", "desc", "mod", "flip", "tpl", "cohort"]
# what stands for an agent where none was given
NO_AGENT = frozenset(("", "no", "none", "n", "na", "n/a", "nein", "ohne", "without", "0", "false", "unknown"))
PLAIN_PARTS = ("mag",)  # of a complex image; its phase is no anatomical image


class ImageName(NamedTuple):
    """A file's name, taken apart.

    Attributes:
        contrast: that it names; None where it names none that is known.
        rest: the name without contrast and contrast agent.
        entities: of BIDS, key to value.
    """

    contrast: str | None
    rest: str
    entities: dict[str, str]


def image_name(path: Path) -> ImageName:
    """Take apart the name of a NIfTI file, or of a folder of DICOM files."""
    parts = [part for part in case_name(path).split("_") if part]
    entities: dict[str, str] = {}
    others = []
    for part in parts:
        key, dash, value = part.partition("-")
        if dash and value and key.lower() in ENTITIES:
            entities.setdefault(key.lower(), value)
        else:
            others.append(part)
    end = others[-1] if others and others[-1] is parts[-1] else ""
    head, suffix = re.fullmatch(r"(?:(.*)-)?([^-]*)", end).groups()  # type: ignore[union-attr]
    contrast = SUFFIXES.get(suffix.lower())
    if entities.get("part", PLAIN_PARTS[0]).lower() not in PLAIN_PARTS:
        contrast = None
    if contrast is None:
        return ImageName(None, "_".join(parts), entities)
    kept = [*parts[:-1], *([head] if head else [])]
    if contrast == "T1w" and entities.get("ce", "").lower() not in NO_AGENT:
        contrast = ENHANCED
    if contrast in ("T1w", ENHANCED):
        kept = [part for part in kept if not part.lower().startswith("ce-")]
    return ImageName(contrast, "_".join(kept), entities)


def contrast_of(path: Path) -> tuple[str, str] | None:
    """Contrast and the rest of a file's name, or None where the name tells no known contrast."""
    name = image_name(path)
    return None if name.contrast is None else (name.contrast, name.rest)

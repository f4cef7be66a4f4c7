"""Brain masks of heads with skull: overlap with the label maps that the heads were made from, and Colin27."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes

from monai_diffens.transforms.brain_mask import BrainNotFound, find_brain, is_stripped
from monai_diffens.transforms.registration import Scan
from research.clinic.heads import CONTRASTS, brain_with_fluid, head, tissue
from research.clinic.trials import Row, read, thick

HEADS = (1, 4, 7, 10, 13, 16, 19)  # of the twenty label maps
SLICES = 5.0


def trials(dataset_dir: Path, colin: Sequence[Path] | None) -> Iterator[Row]:
    """A row for each head, contrast and slice thickness."""
    if colin is not None:
        whole, brain = (read(path) for path in colin)
        inside = binary_fill_holes(brain.values > 0)
        for name, spacing in (("1 mm", 1.0), (f"{SLICES:g} mm", SLICES)):
            yield {
                "head": "Colin27",
                "contrast": "T1w",
                "slices": name,
                **trial(whole, inside, inside, spacing),
            }
    for number in HEADS:
        labels = read(dataset_dir / "derivatives" / "headlabels" / f"labels_{number:02d}.nii.gz")
        for contrast in CONTRASTS:
            scan = head(labels, contrast, number)
            for name, spacing in (("1 mm", 1.0), (f"{SLICES:g} mm", SLICES)):
                numbers = trial(scan, brain_with_fluid(labels), tissue(labels), spacing)
                yield {"head": f"{number:02d}", "contrast": contrast, "slices": name, **numbers}


def trial(scan: Scan, brain: NDArray[np.bool_], core: NDArray[np.bool_], spacing: float) -> Row:
    """Find one brain, of a scan in axial slices of a spacing."""
    cut = [
        thick(Scan(v.astype(np.float32), scan.affine), (1, 1, spacing)) for v in (scan.values, brain, core)
    ]
    seen, inside, within = cut[0], cut[1].values > 0.5, cut[2].values > 0.5
    begin = time.process_time()
    row: Row = {"passes_as_stripped": is_stripped(seen), "dice": np.nan, "tissue_kept": np.nan}
    try:
        found = find_brain(seen)
    except BrainNotFound as nothing:
        return row | {"volume_cm3": nothing.volume, "refused": True, "cpu_s": time.process_time() - begin}
    row["dice"] = float(2 * (found.mask & inside).sum() / (found.mask.sum() + inside.sum()))
    row["tissue_kept"] = float((found.mask & within).sum() / within.sum())
    return row | {"volume_cm3": found.volume, "refused": False, "cpu_s": time.process_time() - begin}


def summarise(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print means by contrast and slices."""
    kinds = dict.fromkeys((row["head"] == "Colin27", row["contrast"], row["slices"]) for row in rows)
    for colin, contrast, slices in kinds:
        here = [
            row
            for row in rows
            if (row["head"] == "Colin27", row["contrast"], row["slices"]) == (colin, contrast, slices)
        ]
        dice, kept, seconds = (
            np.array([row[name] for row in here], dtype=float) for name in ("dice", "tissue_kept", "cpu_s")
        )
        refused = sum(bool(row["refused"]) for row in here)
        kind = "Colin27" if colin else "label maps"
        print(
            f"{kind} {contrast} {slices}: {len(here)} heads, {refused} refused, "
            f"Dice {np.nanmean(dice):.3f} (least {np.nanmin(dice):.3f}), tissue kept {np.nanmean(kept):.3f} "
            f"(least {np.nanmin(kept):.3f}), {seconds.mean():.1f} s"
        )

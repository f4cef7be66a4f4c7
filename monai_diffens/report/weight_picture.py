"""One picture of the weight maps of a result: which expert decided where.

    python -m monai_diffens.report.weight_picture RESULT.nii.gz PICTURE.png

The maps are those that a bundle's inference writes beside the result with ``--save_weights True``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from monai_diffens.report.picture import CONVENTION, cut_plane, foreground_centre

SATURATION = 99.0  # percentile of the deviations from equal weights that the colours reach


def weight_picture(result: Path, picture: Path) -> Path:
    """Draw every expert's weight in the axial slice through the result's centre.

    Args:
        result: volume of a case; its maps are ``<name>_weight-<expert>.nii.gz`` beside it.
        picture: PNG to write; an existing one is replaced.

    Returns:
        ``picture``.

    Raises:
        ValueError: when the result has no maps, or they do not sum to 1 where there is a result.
    """
    from matplotlib.figure import Figure

    stem = result.name.removesuffix(".nii.gz")
    files = sorted(result.parent.glob(f"{stem}_weight-*.nii.gz"))
    if not files:
        raise ValueError(f"no {stem}_weight-*.nii.gz beside {result}: run with --save_weights True")
    volume, *maps = (nib.as_closest_canonical(nib.load(path)).get_fdata() for path in (result, *files))
    inside = volume > 0
    total = np.sum(maps, axis=0)[inside]
    used = total != 0  # outside of the restored box nothing has a weight
    if np.abs(total[used] - 1).max() > 1e-3:
        raise ValueError(f"the weights of {result} do not sum to 1")
    names = [path.name.removesuffix(".nii.gz").split("_weight-")[1] for path in files]
    planes = sorted({name.split("-")[0] for name in names})
    columns = len(names) // len(planes)
    equal = 1 / len(names)
    reach = max(np.percentile(np.abs(np.stack([m[inside][used] for m in maps]) - equal), SATURATION), 0.01)
    centre = foreground_centre(volume)
    figure = Figure(figsize=(2.2 * columns + 0.8, 2.5 * len(planes) + 0.5), dpi=120, layout="constrained")
    axes = figure.subplots(len(planes), columns, squeeze=False)
    for axis, name, weight in zip(axes.flat, names, maps, strict=True):
        image = axis.imshow(
            cut_plane(np.where(inside, weight, np.nan), "axial", centre).T,
            cmap="coolwarm",
            vmin=equal - reach,
            vmax=equal + reach,
            origin="lower",
        )
        axis.set_title(name, fontsize=7)
        axis.set_axis_off()
    figure.colorbar(image, ax=axes, shrink=0.6, label=f"weight (equal: {equal:.3f})")
    figure.supxlabel(CONVENTION, fontsize=7)
    figure.savefig(picture)
    return picture


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", type=Path, help="NIfTI result of a case run with --save_weights True")
    parser.add_argument("picture", type=Path, help="PNG to write")
    options = parser.parse_args(arguments)
    try:
        print(weight_picture(options.result, options.picture))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

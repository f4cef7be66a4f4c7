"""A picture of volumes beside their truth in three planes, a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_diffens.metrics import psnr

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# plane -> (axis across it, (axis to the right, axis upwards), letters at the left and right edge)
PLANES = {
    "axial": (2, (0, 1), "LR"),
    "coronal": (1, (0, 2), "LR"),
    "sagittal": (0, (1, 2), "PA"),
}
CONVENTION = "Neurological convention: the left of the head is on the left."
ERROR_PERCENTILE = 99.5  # of the errors shown: above it the colours saturate

# pixels: of an inch, least width of a panel so that titles fit over small volumes, of a millimetre
DPI, PANEL, ZOOM = 150, 300, 2


def three_plane_picture(
    volumes: Mapping[str, NDArray[Any]],
    truth: NDArray[Any],
    path: str | PathLike[str],
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    data_range: float | None = None,
    caption: str = "",
) -> Path:
    """Write a PNG: the volumes beside the truth in three planes, and below them the error of each.

    The planes go through the centre of the truth's foreground (above 0). All volumes share one grey scale,
    0 to ``data_range``; all absolute errors, in percent of ``data_range``, share one colour scale.
    PSNR in the titles is that of the whole box.

    Args:
        volumes: name -> (X, Y, Z) array, RAS, on the truth's grid and in its unit; one column each.
        truth: (X, Y, Z) array, RAS; the last column.
        path: the PNG; an existing file is replaced.
        spacing: voxel size along X, Y, Z in mm.
        data_range: white of the grey scale and peak of PSNR; the truth's maximum when None.
        caption: printed below, before the convention.

    Returns:
        ``path``.

    Raises:
        ValueError: there are no volumes, shapes differ, or the truth has no voxel above zero.
    """
    from matplotlib.figure import Figure

    path = Path(path)
    truth = np.asarray(truth, dtype=np.float32)
    columns = {name: np.asarray(volume, dtype=np.float32) for name, volume in volumes.items()}
    if not columns or truth.ndim != 3 or any(volume.shape != truth.shape for volume in columns.values()):
        shapes = ", ".join(str(volume.shape) for volume in columns.values()) or "none"
        raise ValueError(f"volumes of the truth's shape {truth.shape} are needed, got {shapes}")
    centre = foreground_centre(truth)
    peak = float(truth.max()) if data_range is None else float(data_range)
    titles = [f"{name}\n{_psnr(volume, truth, peak):.2f} dB" for name, volume in columns.items()]
    errors = [np.abs(volume - truth) * (100 / peak) for volume in columns.values()]
    shown = np.concatenate([cut_plane(error, plane, centre).ravel() for error in errors for plane in PLANES])
    error_peak = max(float(np.percentile(shown, ERROR_PERCENTILE)), 1e-3)

    sizes = [(truth.shape[a] * spacing[a], truth.shape[b] * spacing[b]) for _, (a, b), _ in PLANES.values()]
    widest, heights = max(width for width, _ in sizes), [height for _, height in sizes]
    inches = max(PANEL, ZOOM * widest) / DPI / widest  # a millimetre
    size = (widest * inches * (len(columns) + 1) + 1, 2 * sum(heights) * inches + 2)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    axes = figure.subplots(6, len(columns) + 1, squeeze=False, height_ratios=[*heights, *heights])

    def draw(axes: Any, stack: Sequence[NDArray[Any]], heads: Sequence[str], **colours: Any) -> Any:
        image = None
        for row, (plane, (_, _, letters)), (width, height) in zip(axes, PLANES.items(), sizes, strict=True):
            for axis, volume in zip(row, stack, strict=False):
                shown = {"extent": (0, width, 0, height), "origin": "lower", "interpolation": "nearest"}
                image = axis.imshow(cut_plane(volume, plane, centre).T, **shown, **colours)
                margin = (widest - width) / 2
                axis.set(xlim=(-margin, width + margin), facecolor="black")
            row[0].set_ylabel(plane, fontsize=11)
            _letters(row[0], letters)
        for axis, head in zip(axes[0], heads, strict=False):
            axis.set_title(head, fontsize=11)
        return image

    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    draw(axes[:3], [*columns.values(), truth], [*titles, "truth\n"], cmap="gray", vmin=0, vmax=peak)
    heads = [f"\n{name}: error" for name in columns]
    image = draw(axes[3:], errors, heads, cmap="inferno", vmin=0, vmax=error_peak)
    bar = figure.colorbar(image, cax=axes[4, -1].inset_axes((0.15, 0, 0.1, 1)), extend="max")
    bar.set_label("|x \N{MINUS SIGN} truth|, % of the data range", fontsize=8)
    where = ", ".join(f"{axis} {index}" for axis, index in zip("xyz", centre, strict=True))
    lines = [*caption.splitlines(), f"{CONVENTION} Planes through voxel {where}; PSNR of the whole box."]
    figure.supxlabel("\n".join(lines), fontsize=8.5, color="0.25", ha="left", x=0.02)
    figure.savefig(path, dpi=DPI, format="png")
    return path


def foreground_centre(volume: NDArray[Any]) -> tuple[int, int, int]:
    """Voxel in the middle of the box that holds all voxels above zero.

    Raises:
        ValueError: when no voxel is above zero.
    """
    low, high = foreground_box(volume)
    x, y, z = ((int(first) + int(last)) // 2 for first, last in zip(low, high, strict=True))
    return x, y, z


def foreground_box(volume: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and last index, along X, Y, Z, of the voxels above zero.

    Raises:
        ValueError: when no voxel is above zero.
    """
    inside = np.argwhere(volume > 0)
    if not inside.size:
        raise ValueError("no voxel above zero: nothing to show")
    return inside.min(axis=0), inside.max(axis=0)


def cut_plane(volume: NDArray[Any], plane: str, centre: Sequence[int]) -> NDArray[Any]:
    """Plane of a volume (X, Y, Z) through a voxel: (to the right, upwards), see ``PLANES``."""
    across = PLANES[plane][0]
    return volume.take(centre[across], axis=across)


def _psnr(volume: NDArray[Any], truth: NDArray[Any], data_range: float) -> float:
    pred, real = (torch.from_numpy(np.ascontiguousarray(array)).double() for array in (volume, truth))
    return float(psnr(pred, real, data_range))


def _letters(axis: Axes, letters: str) -> None:
    from matplotlib.patheffects import withStroke

    style: dict[str, Any] = {"color": "white", "fontsize": 9, "transform": axis.transAxes}
    style["path_effects"] = [withStroke(linewidth=2, foreground="black")]
    axis.text(0.02, 0.03, letters[0], ha="left", **style)
    axis.text(0.98, 0.03, letters[1], ha="right", **style)

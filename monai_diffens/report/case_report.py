"""A page for each case: what went in, what came out, how sure it is, and how it was made."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from numpy.typing import NDArray

from monai_diffens.data.output_folder import whole_or_absent
from monai_diffens.data.writer import case_name, output_path, package_version
from monai_diffens.report.page import (
    Column,
    colour_bar,
    page,
    plain_rows,
    planes_grid,
    table,
    warning_list,
)
from monai_diffens.report.picture import CONVENTION, foreground_centre
from monai_diffens.transforms.intensity import SCALE_KEY
from monai_diffens.transforms.split_maps import SPREAD, WEIGHT

NOTICE = "Synthetic - not for primary diagnosis. Research use only."
SPREAD_NOTE = (
    "Spread is the standard deviation of the samples, raised to the floor that the parameters name, if any. "
    "It does not see a wrong slice profile, motion, or anatomy unlike the training's."
)
WEIGHTS_NOTE = "Weight of each expert, averaged over all passes and samples; the weights of a voxel sum to 1."
ABREAST = 4  # weight maps in a row of the page
SATURATION = 99.5  # percentile of a map's values that gets the last colour
# What is 1 in a model's scaling: how figures name it, and what it is.
SCALES = {
    "range": ("the range", "the scan's range, the 99.5th percentile of its foreground"),
    "median": ("the brain's median", "the median of the brain"),
}


class WriteReportd(MapTransform):
    """Write ``<output_dir>/<case>_<suffix>.html``, one self-contained page a case.

    Runs on scaled volumes in RAS order, after
    :class:`~monai_diffens.transforms.describe.DescribeResultd` and before intensities and axes are restored.

    Args:
        keys: the result (1, X, Y, Z), a MetaTensor.
        output_dir: folder of the results.
        suffix: of the results.
        source_key: conditions (M, X, Y, Z), 0 where a case lacks one; those it has are shown where there is
            no scan on its own slices.
        scan_key: the scan on its own slices (1, x, y, z); None to show the conditions always.
        maps: names of the maps at ``<key>_<name>``.
        conditions: names of the conditions.
        scale: what is 1 in the volumes, a key of ``SCALES``.
        white: value of the brightest grey.
        allow_missing_keys: skip absent keys.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        *,
        output_dir: str | Path,
        suffix: str = "sr",
        source_key: str = "image",
        scan_key: str | None = "scan",
        maps: Sequence[str] = (),
        conditions: Sequence[str] = (),
        scale: str = "range",
        white: float = 1.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_dir, self.suffix = Path(str(output_dir)), suffix
        self.source_key, self.scan_key = source_key, scan_key
        self.maps, self.conditions = tuple(maps), tuple(conditions)
        self.scale, self.white = scale, white

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the page; ``data`` is returned unchanged."""
        d = dict(data)
        for key in self.key_iterator(d):
            source = Path(str(d[key].meta.get("filename_or_obj", ""))).name
            case = str(d.get("case") or case_name(source))
            path = output_path(self.output_dir, case, self.suffix)
            text = page(case, self.body(d, key), NOTICE)
            with whole_or_absent(path.with_name(path.name.removesuffix(".nii.gz") + ".html")) as file:
                file.write(text.encode())
        return d

    def body(self, data: Mapping[Hashable, Any], key: Hashable) -> list[str]:
        """Parts of the page, HTML."""
        result, facts = data[key], data.get("facts") or {}
        inside = _array(result) > 0
        centre = foreground_centre(_array(result)) if inside.any() else tuple(n // 2 for n in inside.shape)
        maps = {name: data[f"{key}_{name}"] for name in self.maps}
        unit = float(data[self.source_key].meta.get(SCALE_KEY, 1.0))
        place = nib.affines.apply_affine(np.asarray(result.affine, dtype=float), centre)
        of, what = SCALES[self.scale]
        columns = [
            _column(name, volume, place, "gray", 0.0, self.white)
            for name, volume in (*self.sources(data), ("result", result))
        ]
        parts = [warning_list(data.get("warnings") or []), "<h2>Before and after</h2>"]
        bars = []
        if SPREAD in maps:
            spread = _array(maps[SPREAD])
            high = max(float(np.percentile(spread[inside], SATURATION)) if inside.any() else 0.0, 1e-6)
            columns.append(_column("spread", maps[SPREAD], place, "inferno", 0.0, high))
            bars.append(colour_bar("inferno", "spread 0", f"{high * unit:.4g} ({high:.2%} of {of})"))
            bars.append(f"<p><small>{SPREAD_NOTE}</small></p>")
        parts += [planes_grid(columns), *bars]
        where = ", ".join(f"{value:.1f}" for value in place)
        parts.append(
            f"<p><small>Planes through ({where}) mm (right, front, head positive), all at one scale. "
            f"{CONVENTION} Grey: 0 to {unit * self.white:.4g}, {self.white:g} times {what}.</small></p>"
        )
        parts += ["<h2>Figures</h2>", table(figure_rows(facts, unit, of))]
        weights = {
            name.removeprefix(WEIGHT): volume
            for name, volume in maps.items()
            if name.startswith(WEIGHT) and _array(volume).any()  # those of absent conditions are 0
        }
        if weights:
            parts += ["<h2>Weights</h2>", *_weights(weights, place, inside)]
        parts += ["<h2>Grids</h2>", table(self.grids(data, key), ("", "voxels", "spacing / mm"))]
        parts += ["<h2>Parameters</h2>", table(plain_rows(facts.get("Sampling", {})))]
        made = {"monai-diffens": package_version(), **facts.get("Versions", {})}
        made["weights (SHA-256)"] = facts.get("WeightsSHA256", "unknown")
        return [*parts, "<h2>Made with</h2>", table(plain_rows(made))]

    def sources(self, data: Mapping[Hashable, Any]) -> list[tuple[str, MetaTensor]]:
        """What the model was given, by name: the scan on its own slices, else every condition it has."""
        if self.scan_key is not None and self.scan_key in data:
            return [("scan", data[self.scan_key])]
        image = data[self.source_key]
        names = self.conditions or [f"condition {number + 1}" for number in range(image.shape[0])]
        volumes = [(name, image[i : i + 1]) for i, name in enumerate(names)]
        return [(name, volume) for name, volume in volumes if volume.any()]

    def grids(self, data: Mapping[Hashable, Any], key: Hashable) -> list[tuple[str, str, str]]:
        """Rows: name, shape and spacing of what went in and what came out, axes right, front, head."""
        return [
            (name, _times(volume.shape[1:], "d"), _times(_spacing(volume), ".3g"))
            for name, volume in (*self.sources(data), ("result", data[key]))
        ]


def figure_rows(
    facts: Mapping[str, Any], unit: float | None = None, of: str = SCALES["range"][0]
) -> list[tuple[str, str]]:
    """Rows of what was measured on a result.

    Args:
        facts: of :class:`~monai_diffens.transforms.describe.DescribeResultd`.
        unit: what is 1 there in the input's units, to give the spread in them too.
        of: what that is called.
    """
    rows = []
    if agreement := facts.get("Consistency"):
        mean, largest = agreement["MeanAbsoluteDifference"], agreement["MaximumAbsoluteDifference"]
        rows.append(
            (
                "agreement with the scan",
                f"|result sliced thick again - scan|: {mean:.4%} of {of} on average, {largest:.3%} at most",
            )
        )
    if spread := facts.get("Spread"):
        mean, most = spread["Mean"], spread["Percentile95"]
        text = f"{mean:.3%} of {of} on average, 95 % of the voxels below {most:.3%}"
        if unit is not None:
            text += f" ({mean * unit:.4g} and {most * unit:.4g} in the input's units)"
        rows.append(("spread", text))
    if weights := facts.get("PlaneWeights"):
        rows.append(("mean weight", ", ".join(f"{name} {value:.3f}" for name, value in weights.items())))
    return rows or [("measured", "nothing")]


def _weights(
    volumes: Mapping[str, MetaTensor], place: NDArray[np.floating], inside: NDArray[Any]
) -> list[str]:
    equal = 1 / len(volumes)
    shown = {name: np.where(inside, _array(volume), np.nan) for name, volume in volumes.items()}
    off = np.concatenate([np.abs(weight[inside] - equal) for weight in shown.values()])
    reach = max(float(np.percentile(off, SATURATION)) if off.size else 0.0, 0.01)
    columns = [
        _column(name, volume, place, "coolwarm", equal - reach, equal + reach)._replace(volume=shown[name])
        for name, volume in volumes.items()
    ]
    bar = colour_bar("coolwarm", f"{equal - reach:.3f}", f"{equal + reach:.3f}")
    rows = [planes_grid(columns[first : first + ABREAST]) for first in range(0, len(columns), ABREAST)]
    return [*rows, bar, f"<p><small>{WEIGHTS_NOTE} White: {equal:.3f} each.</small></p>"]


def _column(
    title: str, volume: MetaTensor, place: NDArray[np.floating], colours: str, low: float, high: float
) -> Column:
    array = _array(volume)
    index = nib.affines.apply_affine(np.linalg.inv(np.asarray(volume.affine, dtype=float)), place)
    centre = tuple(int(np.clip(round(value), 0, n - 1)) for value, n in zip(index, array.shape, strict=True))
    return Column(title, array, _spacing(volume), centre, colours, low, high)


def _array(volume: torch.Tensor) -> NDArray[Any]:
    return volume.detach().as_subclass(torch.Tensor).cpu().float()[0].numpy()


def _spacing(volume: MetaTensor) -> list[float]:
    return [float(size) for size in nib.affines.voxel_sizes(np.asarray(volume.affine, dtype=float))]


def _times(values: Sequence[Any], form: str) -> str:
    return " x ".join(format(value, form) for value in values)

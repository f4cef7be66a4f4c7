"""A page for each case: what went in, what came out, how sure it is, and how it was made."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from numpy.typing import NDArray

from monai_diffens.data.writer import output_path
from monai_diffens.files import case_name, package_version, whole_or_absent
from monai_diffens.report.figures import SCALES, figures, spacing_text
from monai_diffens.report.page import (
    Colours,
    Column,
    Layer,
    colour_bar,
    pack,
    panels,
    plain_rows,
    render,
    thumbnail,
)
from monai_diffens.report.picture import CONVENTION, foreground_centre
from monai_diffens.transforms.describe import SPREAD, WEIGHT
from monai_diffens.transforms.intensity import SCALE_KEY

SPREAD_NOTE = (
    "Spread is the standard deviation of the samples, raised to the floor that the parameters name, if any. "
    "It does not see a wrong slice profile, motion, or anatomy unlike the training's."
)
WEIGHTS_NOTE = (
    "Fusion weight of each expert, averaged over all steps and samples. The weights of a voxel sum to 1."
)
SATURATION = 99.5  # percentile of a map's values that gets the last colour
ABREAST = 4  # weight maps in a row of the page
SCAN = "scan"  # key and title of the scan on its own slices
STARTED = "started"


class _Map(NamedTuple):
    title: str
    layer: Layer
    legend: dict[str, str]


class StampStart(Transform):
    """Put the time into ``data["started"]``, seconds since the epoch; the first transform of a case.

    Results and their JSON files never hold it: equal input gives equal files.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the key."""
        return {**data, STARTED: time.time()}


def seconds_since(data: Mapping[Hashable, Any]) -> float | None:
    """Seconds since :class:`StampStart` saw the case; None where it did not, or the clock was put back."""
    if STARTED not in data:
        return None
    seconds = time.time() - float(data[STARTED])
    return seconds if seconds >= 0 else None


class WriteReportd(MapTransform):
    """Write ``<output_dir>/<case>_<suffix>.html``, one self-contained page a case.

    Runs on scaled volumes in RAS order, after
    :class:`~monai_diffens.transforms.describe.DescribeResultd` and before intensities and axes are restored.
    The scan on its own slices is taken from ``data["scan"]`` where there is one.

    Args:
        keys: the result (1, X, Y, Z), a MetaTensor.
        output_dir: folder of the results.
        suffix: of the results.
        source_key: conditions (M, X, Y, Z), 0 where a case lacks one.
        maps: names of the maps at ``<key>_<name>``.
        conditions: names of the conditions. Those that a case has are shown, beside its scan if any; without
            names they are shown only where there is no scan.
        scale: what is 1 in the volumes, a key of :data:`~monai_diffens.report.figures.SCALES`.
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
        maps: Sequence[str] = (),
        conditions: Sequence[str] = (),
        scale: str = "range",
        white: float = 1.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_dir, self.suffix, self.source_key = Path(str(output_dir)), suffix, source_key
        self.maps, self.conditions = tuple(maps), tuple(conditions)
        self.scale, self.white = SCALES[scale], white

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the page; ``data`` is returned unchanged."""
        d = dict(data)
        for key in self.key_iterator(d):
            source = Path(str(d[key].meta.get("filename_or_obj", ""))).name
            case = str(d.get("case") or case_name(source))
            path = output_path(self.output_dir, case, self.suffix)
            text = render("case.html", ["theme.js", "viewer.js"], **self.content(case, path.name, d, key))
            with whole_or_absent(path.with_name(path.name.removesuffix(".nii.gz") + ".html")) as file:
                file.write(text.encode())
        return d

    def content(self, case: str, file: str, data: Mapping[Hashable, Any], key: Hashable) -> dict[str, Any]:
        """Values of the page's template."""
        result, facts = data[key], data.get("facts") or {}
        array = _array(result)
        inside = array > 0
        centre = foreground_centre(array) if inside.any() else tuple(n // 2 for n in inside.shape)
        place = nib.affines.apply_affine(_affine(result), centre)
        sources = self.sources(data)
        unit = self.unit(data)
        grey = [Layer(SCAN if name == SCAN else f"c{i}", name, _array(volume), _affine(volume), unit)
                for i, (name, volume) in enumerate(sources)]  # fmt: skip
        grey.append(Layer("result", "result", array, _affine(result), unit))
        maps = self.map_layers(data, key, inside)
        packed, step = pack([*grey, *(each.layer for each in maps)], self.white)
        seconds = seconds_since(data)
        before = spacing_text(_spacing(sources[0][1])) if sources else ""
        after = spacing_text(_spacing(result))
        image = thumbnail(array, _spacing(result), centre, self.white)
        card = {"Picture": image, "Before": before, "After": after}
        made = {"monai-diffens": package_version(), **facts.get("Versions", {})}
        made["weights (SHA-256)"] = facts.get("WeightsSHA256", "unknown")
        return {
            "title": case,
            "file": file,
            "card": card | ({} if seconds is None else {"Seconds": round(seconds, 1)}),
            "warnings": list(data.get("warnings") or []),
            "figures": figures(facts, before, after, seconds, self.scale, unit),
            "viewer": {
                "layers": [each.layer for each in packed],
                "measured": SCAN in data,
                "place": [round(float(value), 2) for value in place],
                "white": self.white * unit,
                "unit": "" if unit != 1 else f" of {self.scale.short}",
                "step": step,
            },
            "volumes": packed,
            "static": self.static(grey, maps, place),
            "place": ", ".join(f"{value:.1f}" for value in place),
            "grey": f"Grey: 0 to {unit * self.white:.4g}, {self.white:g} times {self.scale.long}. "
            f"{CONVENTION}",
            "grids": [
                (layer.title, " x ".join(map(str, layer.volume.shape)), spacing_text(voxels(layer.affine)))
                for layer in grey
            ],
            "parameters": plain_rows(facts.get("Sampling", {})),
            "made": plain_rows(made),
        }

    def sources(self, data: Mapping[Hashable, Any]) -> list[tuple[str, MetaTensor]]:
        """What the model was given, by name: the scan on its own slices and the conditions, see the class."""
        scan = [(SCAN, data[SCAN])] if SCAN in data else []
        if scan and not self.conditions:
            return scan
        image = data[self.source_key]
        names = self.conditions or [f"condition {number + 1}" for number in range(image.shape[0])]
        volumes = [(name, image[i : i + 1]) for i, name in enumerate(names)]
        return scan + [(name, volume) for name, volume in volumes if volume.any()]

    def unit(self, data: Mapping[Hashable, Any]) -> float:
        """What is 1 in the units of the input; 1 where several contrasts have one each."""
        return 1.0 if self.conditions else float(data[self.source_key].meta.get(SCALE_KEY, 1.0))

    def map_layers(self, data: Mapping[Hashable, Any], key: Hashable, inside: NDArray[Any]) -> list[_Map]:
        """The spread and the weight maps, drawn where there is a result."""
        volumes = {name: data[f"{key}_{name}"] for name in self.maps}
        found, unit = [], self.unit(data)
        if SPREAD in volumes:
            spread = _array(volumes[SPREAD])
            high = max(_percentile(spread[inside]), 1e-6)
            shown, colours = np.where(inside, spread, np.nan), Colours("inferno", 0.0, high)
            layer = Layer(SPREAD, "spread", shown, _affine(volumes[SPREAD]), unit, colours)
            most = f"{high * unit:.4g} ({high:.2%} of {self.scale.short})"
            found.append(_Map("spread", layer, {"low": "0", "high": most, "colours": "inferno"}))
        weights = {
            name.removeprefix(WEIGHT): volume
            for name, volume in volumes.items()
            if name.startswith(WEIGHT) and _array(volume).any()  # those of absent conditions are 0
        }
        if not weights:
            return found
        equal = 1 / len(weights)
        off = [np.abs(_array(volume)[inside] - equal) for volume in weights.values()]
        reach = max(_percentile(np.concatenate(off)), 0.01)
        colours = Colours("coolwarm", equal - reach, equal + reach)
        legend = {"low": f"{colours.low:.3f}", "high": f"{colours.high:.3f}", "colours": "coolwarm"}
        for name, volume in weights.items():
            shown = np.where(inside, _array(volume), np.nan)
            layer = Layer(f"{WEIGHT}{name}", f"weight of {name}", shown, _affine(volume), 1.0, colours)
            found.append(_Map(name, layer, legend))
        return found

    def static(
        self, grey: Sequence[Layer], maps: Sequence[_Map], place: NDArray[np.floating]
    ) -> list[dict[str, Any]]:
        """Pictures that need no viewer: a group of columns each for the images and the weights."""
        spread = [each for each in maps if each.layer.key == SPREAD]
        weights = [each for each in maps if each.layer.key != SPREAD]
        images = [_column(layer.title, layer, place, Colours("gray", 0.0, self.white)) for layer in grey]
        images += [_column(each.title, each.layer, place) for each in spread]
        groups = [_group("Before and after", images, spread, SPREAD_NOTE)]
        for first in range(0, len(weights), ABREAST):
            some = weights[first : first + ABREAST]
            columns = [_column(each.title, each.layer, place) for each in some]
            groups.append(_group("" if first else "Fusion weights", columns, some[:1], WEIGHTS_NOTE))
        return groups


def _group(title: str, columns: Sequence[Column], maps: Sequence[_Map], note: str) -> dict[str, Any]:
    return {
        "title": title,
        "names": [column.title for column in columns],
        "rows": panels(columns),
        "bars": [each.legend | {"bar": colour_bar(each.legend["colours"])} for each in maps],
        "note": note if maps else "",
    }


def voxels(affine: NDArray[np.floating]) -> list[float]:
    """Voxel size in mm, axes right, front, head."""
    return [float(size) for size in nib.affines.voxel_sizes(affine)]


def _column(title: str, layer: Layer, place: NDArray[np.floating], colours: Colours | None = None) -> Column:
    shown = layer.colours or colours or Colours("gray", 0.0, 1.0)
    index = nib.affines.apply_affine(np.linalg.inv(layer.affine), place)
    centre = [
        int(np.clip(round(value), 0, n - 1)) for value, n in zip(index, layer.volume.shape, strict=True)
    ]
    return Column(title, layer.volume, voxels(layer.affine), centre, *shown)


def _percentile(values: NDArray[Any]) -> float:
    return float(np.percentile(values, SATURATION)) if values.size else 0.0


def _array(volume: torch.Tensor) -> NDArray[Any]:
    return volume.detach().as_subclass(torch.Tensor).cpu().float()[0].numpy()


def _affine(volume: MetaTensor) -> NDArray[np.floating]:
    return np.asarray(volume.affine, dtype=float)


def _spacing(volume: MetaTensor) -> list[float]:
    return voxels(_affine(volume))

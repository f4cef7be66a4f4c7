"""Volumes packed into a page for its viewer: NIfTI in few bits a voxel, compressed, as text."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

LARGEST = 12 << 20  # characters of all volumes of a page; beyond that voxels are left out, first of maps
MOST_VOXELS = 24 << 20  # of one volume: browsers on small machines draw no more with ease
GREYS = 1000  # steps from black to white: finer than a screen, also in a narrow window
LEVELS = 62  # of a map; 0 says that there is no value


class Colours(NamedTuple):
    """What the values of a map look like.

    Attributes:
        name: of one of matplotlib's colour maps.
        low: value of its first colour; lower ones have it too.
        high: value of its last.
    """

    name: str
    low: float
    high: float


class Layer(NamedTuple):
    """A volume that the viewer can show.

    Attributes:
        key: short name, unique on the page.
        title: for users.
        volume: (X, Y, Z), RAS; NaN is not drawn.
        affine: voxels to mm.
        unit: what 1 is in the units that users read.
        colours: of a map; None for a grey image.
    """

    key: str
    title: str
    volume: NDArray[Any]
    affine: NDArray[np.floating]
    unit: float = 1.0
    colours: Colours | None = None


class Packed(NamedTuple):
    """A layer as the page holds it.

    Attributes:
        layer: key, title, ``least`` and ``most`` of the stored values in the units that users read, and the
            colours of a map: 256 of red, green, blue, alpha.
        text: compressed NIfTI, base64.
    """

    layer: dict[str, Any]
    text: str


def pack(layers: Sequence[Layer], white: float) -> tuple[list[Packed], int]:
    """Pack the layers of a page.

    Args:
        layers: of one field of view, on any grids.
        white: value of the brightest grey, to which grey images have ``GREYS`` steps.

    Returns:
        The layers, and the step between the voxels of images that were kept: 1 where all were.
    """
    images = 1
    while max(np.prod([-(-n // images) for n in layer.volume.shape]) for layer in layers) > MOST_VOXELS:
        images += 1
    maps, done = images, {}
    while True:
        steps = [maps if layer.colours else images for layer in layers]
        for layer, step in zip(layers, steps, strict=True):
            if (layer.key, step) not in done:
                done[layer.key, step] = _pack(layer, white, step)
        packed = [done[layer.key, step] for layer, step in zip(layers, steps, strict=True)]
        if sum(len(each.text) for each in packed) <= LARGEST or images >= max(layers[0].volume.shape):
            return packed, images
        if maps == images:
            maps += 1
        else:
            images += 1


def colour_table(colours: Colours, values: Iterable[float]) -> NDArray[np.uint8]:
    """Colours (N, 4) of values."""
    import matplotlib

    scaled = (np.asarray(list(values)) - colours.low) / max(colours.high - colours.low, 1e-12)
    return np.asarray(matplotlib.colormaps[colours.name](np.clip(scaled, 0, 1), bytes=True))


def _pack(layer: Layer, white: float, step: int) -> Packed:
    volume = np.asarray(layer.volume, dtype=np.float32)
    # a grid that is coarse already, as thick slices are, keeps its coarse axes
    steps = [step if n > 2 * step else 1 for n in volume.shape]
    volume = volume[:: steps[0], :: steps[1], :: steps[2]]
    affine = np.asarray(layer.affine, dtype=float) @ np.diag([*steps, 1.0])
    about: dict[str, Any] = {"key": layer.key, "title": layer.title}
    if layer.colours is None:
        slope, offset = white / GREYS, 0.0
        limit = np.iinfo(np.int16).max
        stored = np.clip(np.nan_to_num(volume) / slope, -limit, limit).round().astype(np.int16)
        about |= {"white": white * layer.unit}
    else:
        known = np.isfinite(volume)
        low, high = (float(volume[known].min()), float(volume[known].max())) if known.any() else (0.0, 1.0)
        slope = max(high - low, 1e-6) / (LEVELS - 1)
        offset = low - slope  # stored 1 is the lowest
        scaled = np.where(known, (np.where(known, volume, low) - low) / slope, -1)
        stored = (scaled.round() + 1).astype(np.uint8)
        table = colour_table(layer.colours, offset + slope * np.linspace(0, LEVELS, 256))
        table[0, 3] = 0
        about |= {"colours": table.T.tolist(), "low": layer.colours.low * layer.unit}
        about |= {"high": layer.colours.high * layer.unit}
    slope, offset = slope * layer.unit, offset * layer.unit
    about |= {"least": offset, "most": offset + slope * LEVELS}
    header = nib.Nifti1Image(stored, affine).header
    header.set_xyzt_units("mm")
    # written by hand: nibabel would choose a scaling of its own
    header["vox_offset"], header["scl_slope"], header["scl_inter"] = 352, slope, offset
    content = header.binaryblock + b"\0\0\0\0" + stored.tobytes(order="F")
    return Packed(about, compressed(content))


def compressed(content: bytes) -> str:
    """Bytes as base64 of gzip; equal bytes give equal text."""
    return base64.b64encode(gzip.compress(content, compresslevel=6, mtime=0)).decode()

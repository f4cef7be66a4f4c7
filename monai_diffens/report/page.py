"""Pages: templates filled in, with all that a page needs inside it, so that it opens without a network.

Pictures are data URIs. Volumes for the viewer are NIfTI in few bits a voxel, compressed, as text.
"""

from __future__ import annotations

import base64
import gzip
import io
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from markupsafe import Markup
from numpy.typing import NDArray

from monai_diffens.report.picture import PLANES, cut_plane

NOTICE = "Synthetic - not for primary diagnosis. Research use only."
FOLDER = Path(__file__).parent
VIEWER = FOLDER / "viewer" / "niivue-0.69.0.umd.js"
SCALE_WIDTH = 256  # colours of a colour bar
HEIGHT, GAP = 72, 2  # of thumbnails, pixels
LARGEST = 12 << 20  # characters of all volumes of a page; beyond that voxels are left out, first of maps
MOST_VOXELS = 24 << 20  # of one volume: browsers on small machines draw no more with ease
GREYS = 1000  # steps from black to white: finer than a screen, also in a narrow window
LEVELS = 62  # of a map; 0 says that there is no value


class Colours(NamedTuple):
    """What the values of a map look like."""

    name: str  # of one of matplotlib's colour maps
    low: float  # value of its first colour; lower ones have it too
    high: float  # value of its last


class Layer(NamedTuple):
    """A volume that the viewer can show."""

    key: str  # short name, unique on the page
    title: str  # for users
    volume: NDArray[Any]  # (X, Y, Z), RAS; NaN is not drawn
    affine: NDArray[np.floating]  # voxels to mm
    unit: float = 1.0  # what 1 is in the units that users read
    colours: Colours | None = None  # of a map; None for a grey image


class Packed(NamedTuple):
    """A layer as the page holds it."""

    # key, title, least and most of the stored values in the units that users read, and the colours of a map:
    # 256 of red, green, blue, alpha
    layer: dict[str, Any]
    text: str  # compressed NIfTI, base64


class Column(NamedTuple):
    """A volume to show in three planes."""

    title: str  # above the column
    volume: NDArray[Any]  # (X, Y, Z), RAS; NaN is black
    spacing: Sequence[float]  # voxel size along X, Y, Z in mm
    centre: Sequence[int]  # voxel that the planes go through
    colours: str  # name of one of matplotlib's colour maps
    low: float  # value of its first colour
    high: float  # value of its last


class Panel(NamedTuple):
    """One picture of a column."""

    title: str  # of its column
    plane: str  # that it shows
    picture: str  # data URI
    width: float  # share of the widest panel of the grid
    ratio: float  # width over height, in mm
    letters: str  # directions at its left and right edge


def render(template: str, scripts: Sequence[str], **context: Any) -> str:
    """Fill in a template of this package; values are escaped.

    Args:
        template: file name.
        scripts: file names of the scripts that the page holds; no other one runs on it.
        context: values of the template.
    """
    texts = {name: _read(name) for name in scripts}
    allowed = [_digest(text) for text in texts.values()]
    if "viewer" in context:
        script, context["library"] = _viewer()
        allowed.append(_digest(script))
    return (
        _environment()
        .get_template(template)
        .render(
            notice=NOTICE,
            style=Markup(_read("style.css")),
            scripts={name: Markup(text) for name, text in texts.items()},
            allowed=Markup(" ".join(f"'sha256-{digest}'" for digest in allowed)),
            **context,
        )
    )


def panels(columns: Sequence[Column]) -> list[list[Panel]]:
    """Pictures of the volumes, a row a plane, all at one scale in mm."""
    widest = max(
        column.volume.shape[axis] * column.spacing[axis]
        for column in columns
        for _, (axis, _), _ in PLANES.values()
    )
    rows = []
    for plane, (_, axes, letters) in PLANES.items():
        row = []
        for column in columns:
            width, height = (column.volume.shape[axis] * column.spacing[axis] for axis in axes)
            cut = cut_plane(column.volume, plane, column.centre).T[::-1]
            image = picture(cut, column.colours, column.low, column.high)
            row.append(Panel(column.title, plane, image, width / widest, width / height, letters))
        rows.append(row)
    return rows


def thumbnail(volume: NDArray[Any], spacing: Sequence[float], centre: Sequence[int], white: float) -> str:
    """Three planes of a volume side by side, a JPEG as data URI.

    Args:
        volume: (X, Y, Z), RAS.
        spacing: voxel size in mm.
        centre: voxel that the planes go through.
        white: value of the brightest grey.
    """
    tallest = max(volume.shape[up] * spacing[up] for _, (_, up), _ in PLANES.values())
    tiles = []
    for plane, (_, axes, _) in PLANES.items():
        cut = torch.from_numpy(np.ascontiguousarray(cut_plane(volume, plane, centre).T[::-1])).float()
        wide, high = (max(1, round(volume.shape[axis] * spacing[axis] / tallest * HEIGHT)) for axis in axes)
        small = F.adaptive_avg_pool2d(cut[None, None], (high, wide))[0, 0].numpy()
        above = (HEIGHT - high) // 2
        tiles.append(np.pad(small, ((above, HEIGHT - high - above), (0, GAP))))
    return picture(np.concatenate(tiles, axis=1), "gray", 0, white, "jpeg")


def colour_bar(colours: str) -> str:
    """A colour map from its first colour to its last, a data URI."""
    return picture(np.linspace(0, 1, SCALE_WIDTH)[None], colours, 0, 1)


def picture(values: NDArray[Any], colours: str, low: float, high: float, form: str = "png") -> str:
    """A PNG or JPEG of (rows, columns) values as a data URI, a pixel a value; NaN is black."""
    import matplotlib
    from matplotlib.image import imsave

    scaled = (np.asarray(values, dtype=np.float64) - low) / max(high - low, 1e-12)
    pixels = matplotlib.colormaps[colours].with_extremes(bad="black")(
        np.ma.masked_invalid(scaled), bytes=True
    )
    file = io.BytesIO()
    imsave(file, np.ascontiguousarray(pixels[..., :3]), format=form)
    return f"data:image/{form};base64," + base64.b64encode(file.getvalue()).decode()


def plain_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows of a table of one level of facts."""
    return [(str(name), "" if value is None else str(value)) for name, value in facts.items()]


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _read(name: str) -> str:
    return (FOLDER / "templates" / name).read_text(encoding="utf-8")


@cache
def _viewer() -> tuple[str, str]:
    """NiiVue's script, and what the page holds of it."""
    script = VIEWER.read_text(encoding="utf-8")
    return script, compressed(script.encode())


def _digest(script: str) -> str:
    return base64.b64encode(sha256(script.encode()).digest()).decode()


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

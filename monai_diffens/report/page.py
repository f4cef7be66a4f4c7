"""Pages: templates filled in, and all that a page needs inside it, so that it opens without a network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from monai_diffens.report.picture import PLANES, cut_plane
from monai_diffens.report.volumes import compressed

NOTICE = "Synthetic - not for primary diagnosis. Research use only."
FOLDER = Path(__file__).parent
VIEWER = FOLDER / "viewer" / "niivue-0.69.0.umd.js"
SCALE_WIDTH = 256  # colours of a colour bar


class Column(NamedTuple):
    """A volume to show in three planes.

    Attributes:
        title: above the column.
        volume: (X, Y, Z), RAS; NaN is black.
        spacing: voxel size along X, Y, Z in mm.
        centre: voxel that the planes go through.
        colours: name of one of matplotlib's colour maps.
        low: value of its first colour.
        high: value of its last.
    """

    title: str
    volume: NDArray[Any]
    spacing: Sequence[float]
    centre: Sequence[int]
    colours: str
    low: float
    high: float


class Panel(NamedTuple):
    """One picture of a column.

    Attributes:
        title: of its column.
        plane: that it shows.
        picture: data URI.
        width: share of the widest panel of the grid.
        ratio: width over height, in mm.
        letters: directions at its left and right edge.
    """

    title: str
    plane: str
    picture: str
    width: float
    ratio: float
    letters: str


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
        allowed.append(_digest(_viewer()))
        context["library"] = _viewer_text()
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
def _viewer() -> str:
    return VIEWER.read_text(encoding="utf-8")


@cache
def _viewer_text() -> str:
    return compressed(_viewer().encode())


def _digest(script: str) -> str:
    return base64.b64encode(sha256(script.encode()).digest()).decode()

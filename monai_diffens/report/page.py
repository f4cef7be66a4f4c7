"""Self-contained HTML: tables and pictures of three planes, embedded, readable without a network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_diffens.report.picture import PLANES, cut_plane

PANEL_WIDTH = 250  # pixels of the widest panel, less where many stand side by side
PAGE_WIDTH = 1200

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1250px; margin: 1.5em auto }
body { padding: 0 1em }
h1 { font-size: 1.5em; margin-bottom: 0 } h2 { font-size: 1.15em; margin-top: 1.8em }
.notice { background: #7a1f1f; color: #fff; padding: .4em .8em; font-weight: bold }
.warnings { background: #fff3cd; border-left: .4em solid #e0a800; padding: .5em .8em }
.planes { display: grid; gap: 6px; width: max-content; align-items: center; margin-bottom: 1em }
.planes b { text-align: center; font-weight: 600 } .planes i { writing-mode: vertical-rl; rotate: 180deg }
.panel { position: relative; background: #000; display: flex; justify-content: center }
.panel img { image-rendering: pixelated }
.panel span { position: absolute; bottom: 0; color: #fff; padding: 0 .3em; text-shadow: 0 0 3px #000 }
.bar { display: flex; gap: .6em; align-items: center; margin: .6em 0 } .bar img { width: 250px; height: 12px }
table { border-collapse: collapse }
th, td { text-align: left; padding: .2em .9em .2em 0; vertical-align: top }
tr { border-bottom: 1px solid #ddd } code { font-size: .9em; overflow-wrap: anywhere }
small { color: #555 }
"""


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


def page(title: str, body: Sequence[str], notice: str) -> str:
    """A whole HTML page of parts that are HTML already; ``title`` and ``notice`` are plain text."""
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
            # nothing but what the page brings with it: no network, no script
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
            "style-src 'unsafe-inline'\">",
            '<meta name="viewport" content="width=device-width">',
            f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
            f'<p class="notice">{escape(notice)}</p><h1>{escape(title)}</h1>',
            *body,
            "</body></html>\n",
        ]
    )


def table(rows: Sequence[Sequence[str]], heads: Sequence[str] = ()) -> str:
    """An HTML table of plain text; without ``heads`` the first cell of each row is its head."""
    lines = ["<tr>" + "".join(f"<th>{escape(head)}</th>" for head in heads) + "</tr>"] if heads else []
    for first, *others in rows:
        cells = f"<td>{escape(first)}</td>" if heads else f"<th>{escape(first)}</th>"
        lines.append(f"<tr>{cells}" + "".join(f"<td>{escape(cell)}</td>" for cell in others) + "</tr>")
    return "<table>" + "\n".join(lines) + "</table>"


def warning_list(warnings: Sequence[str]) -> str:
    """The warnings of a case, or that there are none."""
    if not warnings:
        return "<p>No warnings.</p>"
    return '<div class="warnings">' + "<br>".join(map(escape, warnings)) + "</div>"


def planes_grid(columns: Sequence[Column]) -> str:
    """Panels of the volumes, one row a plane, all at one scale in mm."""
    widest = max(column.volume.shape[axis] * column.spacing[axis] for column in columns for axis in range(3))
    zoom = min(PANEL_WIDTH, PAGE_WIDTH / len(columns)) / widest
    cells = ["<span></span>", *(f"<b>{escape(column.title)}</b>" for column in columns)]
    for plane, (_, axes, letters) in PLANES.items():
        cells.append(f"<i>{plane}</i>")
        for number, column in enumerate(columns):
            width, height = (column.volume.shape[axis] * column.spacing[axis] * zoom for axis in axes)
            cut = cut_plane(column.volume, plane, column.centre).T[::-1]
            image = f'<img src="{picture(cut, column.colours, column.low, column.high)}" ' + (
                f'style="width:{width:.0f}px;height:{height:.0f}px" alt="{escape(column.title)}, {plane}">'
            )
            sides = f'<span style="left:0">{letters[0]}</span><span style="right:0">{letters[1]}</span>'
            cells.append(f'<div class="panel">{image}{"" if number else sides}</div>')
    template = f"grid-template-columns: 1.6em repeat({len(columns)}, auto)"
    return f'<div class="planes" style="{template}">' + "\n".join(cells) + "</div>"


def colour_bar(colours: str, low: str, high: str) -> str:
    """A colour map between the texts of its ends."""
    ramp = picture(np.linspace(0, 1, 256)[None], colours, 0, 1)
    return f'<p class="bar">{escape(low)} <img src="{ramp}" alt="colour scale"> {escape(high)}</p>'


def picture(values: NDArray[Any], colours: str, low: float, high: float) -> str:
    """A PNG of (rows, columns) values as a data URI, a pixel a value."""
    import matplotlib
    from matplotlib.image import imsave

    scaled = (np.asarray(values, dtype=np.float64) - low) / max(high - low, 1e-12)
    pixels = matplotlib.colormaps[colours].with_extremes(bad="black")(
        np.ma.masked_invalid(scaled), bytes=True
    )
    file = io.BytesIO()
    imsave(file, np.ascontiguousarray(pixels[..., :3]), format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def plain_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows of a table of one level of facts."""
    return [(str(name), "" if value is None else str(value)) for name, value in facts.items()]

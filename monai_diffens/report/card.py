"""The card of a page: what the index shows of a case beside its JSON file, kept at the page's head."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from monai_diffens.report.page import picture
from monai_diffens.report.picture import PLANES, cut_plane

HEIGHT = 72  # pixels of a thumbnail
GAP = 2
HEAD = 1 << 16  # bytes of a page that are searched
CARD = re.compile(r'<script type="application/json" id="card">(.*?)</script>', re.S)
PICTURE = re.compile(r"data:image/jpeg;base64,[A-Za-z0-9+/]+=*")


def thumbnail(
    volume: NDArray[Any], spacing: Sequence[float], centre: Sequence[int], white: float
) -> tuple[str, float]:
    """Three planes of a volume side by side, a JPEG as data URI, and its width over its height.

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
    tile = np.concatenate(tiles, axis=1)
    return picture(tile, "gray", 0, white, "jpeg"), tile.shape[1] / tile.shape[0]


def read_card(page: Path) -> dict[str, Any]:
    """What a page of a case tells the index; nothing that is absent or not of its kind.

    Returns:
        Of ``Picture`` (data URI), ``Ratio`` (its width over its height), ``Before`` and ``After`` (voxels
        in mm) and ``Seconds`` those that it has.
    """
    try:
        with page.open("rb") as file:
            head = file.read(HEAD).decode("utf-8", errors="replace")
        match = CARD.search(head)
        card = json.loads(match[1]) if match else {}
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(card, dict):
        return {}
    known: dict[str, Any] = {}
    if isinstance(image := card.get("Picture"), str) and PICTURE.fullmatch(image):
        known["Picture"] = image
    for name in ("Before", "After"):
        if isinstance(text := card.get(name), str):
            known[name] = text[:80]
    for name in ("Ratio", "Seconds"):
        value = card.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e7:
            known[name] = float(value)
    return known

"""Windows of a volume that a 3D network may be run in one by one, with the result of the whole.

Where a network normalises over channels only, a voxel depends on what lies within its receptive field and
on nothing else. A window that reads that much around the voxels it answers for gives them the values of the
whole volume, so nothing has to be blended.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

Box = tuple[slice, slice, slice]


class Window(NamedTuple):
    """One window.

    Attributes:
        core: the voxels it answers for; the cores of all windows tile the volume.
        padded: the voxels it reads, the core with its halo as far as the volume reaches.
        inner: where the core lies inside of ``padded``.
    """

    core: Box
    padded: Box
    inner: Box


def receptive_halo(level_strides: Sequence[int]) -> int:
    """Voxels around an aligned core that a :class:`VolumeCalibrator` of these levels reads.

    Every level has a block of two 3x3x3 convolutions on the way down and, but for the coarsest, on the way
    up; one convolution each leads in and out. A multiple of the coarsest stride, so that windows stay
    aligned with the cells of every level.
    """
    strides = list(level_strides)
    ratios = [coarse // fine for fine, coarse in itertools.pairwise(strides)]
    reach = 1  # in cells of the level at hand: the convolution that leads out
    for ratio in ratios:
        reach = math.ceil((reach + 2) / ratio)
    reach += 2
    for ratio in reversed(ratios):
        reach = reach * ratio + 2
    return math.ceil((reach + 1) * strides[0] / strides[-1]) * strides[-1]


def split(shape: Sequence[int], max_voxels: int, halo: int, divisor: int, at_least: int = 1) -> list[Window]:
    """Cut a volume into the windows that read the fewest voxels in all.

    Args:
        shape: (X, Y, Z).
        max_voxels: voxels that a window may read; where not even the smallest fits, the smallest is taken.
        halo: voxels to read around a core, a multiple of ``divisor``.
        divisor: cores start at its multiples.
        at_least: number of windows wanted, to share them among processes.
    """
    # of each way to cut an axis: its parts, the longest of them, and their sum
    axes: list[list[tuple[list[tuple[slice, slice]], int, int]]] = []
    for side in shape:
        cuts = _axis_options(side, halo, divisor)
        lengths = [[padded.stop - padded.start for _, padded in parts] for parts in cuts]
        axes.append([(parts, max(each), sum(each)) for parts, each in zip(cuts, lengths, strict=True)])
    best: tuple[tuple[bool, int], list[list[tuple[slice, slice]]]] | None = None
    for x, y, z in itertools.product(*axes):
        if len(x[0]) * len(y[0]) * len(z[0]) < at_least:
            continue
        largest, read = x[1] * y[1] * z[1], x[2] * y[2] * z[2]
        rank = (largest > max_voxels, read if largest <= max_voxels else largest)
        if best is None or rank < best[0]:
            best = (rank, [x[0], y[0], z[0]])
    if best is None:  # a volume too small for so many windows
        return split(shape, max_voxels, halo, divisor)
    return [_window(*parts) for parts in itertools.product(*best[1])]


def _axis_options(side: int, halo: int, divisor: int) -> list[list[tuple[slice, slice]]]:
    """All ways to cut one axis into up to 16 equal parts: (core, padded) slices of each part."""
    options: list[list[tuple[slice, slice]]] = []
    for count in range(1, min(16, math.ceil(side / divisor)) + 1):
        width = math.ceil(side / count / divisor) * divisor
        cores = [slice(start, min(start + width, side)) for start in range(0, side, width)]
        if len(cores) == count:
            options.append([(c, slice(max(0, c.start - halo), min(side, c.stop + halo))) for c in cores])
    return options


def _window(x: tuple[slice, slice], y: tuple[slice, slice], z: tuple[slice, slice]) -> Window:
    axes = (x, y, z)
    core, padded = (x[0], y[0], z[0]), (x[1], y[1], z[1])
    i, j, k = (slice(c.start - p.start, c.stop - p.start) for c, p in axes)
    return Window(core, padded, (i, j, k))

"""Patches of real volumes and of what was done to them: what the patch encoder learns to tell apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import TensorDataset

from monai_diffens.contrasts import CONTRASTS
from monai_diffens.metrics import gaussian_smooth
from monai_diffens.transforms.thick_slices import measurement_for, thick_slice
from research.realism.patches import cut_patches, patch_corners

PATCHES_REAL, PATCHES_DEGRADED, STRENGTHS = 120, 30, 3

Degradation = Callable[[Tensor, float, Generator], Tensor]


def _slices(strength: float, generator: Generator) -> list[float]:
    """Slice spacings: 1.5 to 6 voxels on one axis, or 1.5 to 4 on all."""
    axis = int(torch.randint(4, (1,), generator=generator))
    if axis == 3:
        return [1.5 + 2.5 * strength] * 3
    return [1.5 + 4.5 * strength if each == axis else 1.0 for each in range(3)]


def _cubic(volume: Tensor, strength: float, generator: Generator) -> Tensor:
    measurement = measurement_for(volume.shape[1:], _slices(strength, generator))
    return measurement.interpolate(measurement(volume))


def _spline(volume: Tensor, strength: float, generator: Generator) -> Tensor:
    return torch.as_tensor(thick_slice(volume, _slices(strength, generator)))


def _blur(volume: Tensor, strength: float, generator: Generator) -> Tensor:
    return gaussian_smooth(volume[0], 0.4 + 1.4 * strength, 7)[None]


def _noise(volume: Tensor, strength: float, generator: Generator) -> Tensor:
    return volume + (0.01 + 0.09 * strength) * torch.randn(volume.shape, generator=generator)


def _sharpened(volume: Tensor, strength: float, generator: Generator) -> Tensor:
    return volume + (0.3 + 1.7 * strength) * (volume - gaussian_smooth(volume[0], 1.0, 4)[None])


def _weakened(volume: Tensor, strength: float, generator: Generator) -> Tensor:
    """A part of the detail that thick slices miss is lost, as in the mean of what is plausible."""
    coarse = _spline(volume, 0.6, generator)
    return coarse + (0.8 - 0.7 * strength) * (volume - coarse)


def _misplaced(volume: Tensor, strength: float, generator: Generator) -> Tensor:
    """A part of that detail is another place's: as rich as the real one, and wrong."""
    coarse = _spline(volume, 0.6, generator)
    detail = volume - coarse
    axis = 1 + int(torch.randint(3, (1,), generator=generator))
    share = 0.3 + 0.7 * strength
    return coarse + (1 - share**2) ** 0.5 * detail + share * detail.flip(axis)


DEGRADATIONS: Mapping[str, Degradation] = {
    "cubic interpolation of slices": _cubic,
    "restored spline of slices": _spline,
    "blurred": _blur,
    "noisy": _noise,
    "sharpened": _sharpened,
    "weakened detail": _weakened,
    "misplaced detail": _misplaced,
}
KINDS = ("real", *DEGRADATIONS)


def degraded_patches(
    items: Sequence[Mapping[str, Any]],
    preprocessing: Callable[[Mapping[str, Any]], dict[str, Any]],
    size: int,
    seed: int = 0,
) -> TensorDataset:
    """Random foreground patches of every volume, real and degraded in every way at three strengths.

    Args:
        items: volumes with ``label`` (path) and ``contrast``.
        preprocessing: loads an item and scales its ``label`` (1, X, Y, Z) to [0, about 1].
        size: side of a patch, in voxels.
        seed: of strengths, axes, noise and places.

    Returns:
        Patches (N, 1, size, size, size) in half precision, with the number of their kind in :data:`KINDS`,
        that of their contrast, and the strength, 0 (real) to 1.
    """
    generator = torch.Generator().manual_seed(seed)
    patches, kinds, contrasts, strengths = [], [], [], []
    for item in items:
        truth = torch.as_tensor(preprocessing(item)["label"]).float()
        inside = truth > 0
        corners = patch_corners(inside[0], size, 2)

        def take(
            volume: Tensor,
            kind: int,
            strength: float,
            count: int,
            corners: Tensor = corners,
            item: Mapping[str, Any] = item,
        ) -> None:
            chosen = corners[torch.randint(len(corners), (count,), generator=generator)]
            patches.append(cut_patches(volume[0], chosen, size).half())
            kinds.extend([kind] * count)
            contrasts.extend([CONTRASTS.index(item["contrast"])] * count)
            strengths.extend([strength] * count)

        take(truth, 0, 0.0, PATCHES_REAL)
        for kind, degrade in enumerate(DEGRADATIONS.values(), start=1):
            for part in range(STRENGTHS):
                strength = (part + float(torch.rand(1, generator=generator))) / STRENGTHS
                result = degrade(truth, strength, generator).clamp(min=0).float()
                take(torch.where(inside, result, truth), kind, strength, PATCHES_DEGRADED)
    return TensorDataset(
        torch.cat(patches), torch.tensor(kinds), torch.tensor(contrasts), torch.tensor(strengths)
    )

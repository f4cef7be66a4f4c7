"""Validation of one 2D expert by sampling whole volumes with it alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from monai_diffens.acquisition.slicing import PLANES
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.plane_denoiser import PlaneDenoiser


def plane_ensemble(
    denoiser: PlaneDenoiser,
    planes: str | Sequence[str] = PLANES,
    conditions: Sequence[str] = ("image",),
    target: int = 0,
) -> DiffEnsembler:
    """Model whose expert of every plane is ``denoiser`` itself, and whose fusion is their mean.

    Args:
        denoiser: shared, not copied: what trains on is what is validated.
        planes: plane or planes that it is trained on.
        conditions: the conditions that it tells apart, or sees together (a joint expert).
        target: of a joint expert, number of the contrast to make.
    """
    names = (planes,) if isinstance(planes, str) else tuple(planes)
    small: dict[str, Any] = {
        "channels": (8,),
        "norm_num_groups": 4,
        "num_head_channels": 8,
    }  # replaced at once
    if denoiser.conditions > 1:
        reach = (denoiser.condition_channels // denoiser.conditions - 1) // 2
        small |= {"groups": [conditions], "reach": reach, "num_class_embeds": 1}
    network = DiffEnsembler(
        planes=names, conditions=conditions, calibrator_channels=(8,), fusion="mean", **small
    )
    network.bank.target = target
    network.bank.experts = nn.ModuleList([denoiser for _ in names])
    return network

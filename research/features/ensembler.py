"""Diff-Ensembler whose fusion reads the experts' decoder maps as well."""

from __future__ import annotations

from typing import Any

from monai_diffens.networks.diff_ensembler import DiffEnsembler
from research.features.alignment import FeatureAlignment


class FeatureEnsembler(DiffEnsembler):
    """:class:`DiffEnsembler` that feeds the experts' decoder maps to the calibrator (hierarchical alignment).

    Args:
        calibrator_channels: width of each calibrator level.
        **options: further arguments of :class:`DiffEnsembler`.
    """

    def __init__(self, calibrator_channels: tuple[int, ...] = (32, 64), **options: Any) -> None:
        super().__init__(calibrator_channels=calibrator_channels, **options)
        denoiser: Any = self.bank.experts[0]
        self.alignment = FeatureAlignment(
            self.bank.expert_planes,
            denoiser.feature_channels,
            denoiser.feature_strides,
            calibrator_channels[1:],
            self.calibrator.level_strides[1:],
        )

"""Metrics of 3D volumes on MONAI's metric base, and the one function that fills every table."""

from __future__ import annotations

from .hfen import HFENMetric
from .inter_slice import InterSliceErrorMetric
from .masked import MaskedPSNRMetric, MaskedSSIMMetric
from .realism import PatchRealism
from .sharpness import SharpnessRatioMetric
from .suite import volume_metrics
from .volume_metric import VolumeMetric

__all__ = [
    "HFENMetric",
    "InterSliceErrorMetric",
    "MaskedPSNRMetric",
    "MaskedSSIMMetric",
    "PatchRealism",
    "SharpnessRatioMetric",
    "VolumeMetric",
    "volume_metrics",
]

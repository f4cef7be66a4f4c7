"""PSNR and SSIM of 3D volumes inside the brain, on MONAI's metric base."""

from __future__ import annotations

from .masked import MaskedPSNRMetric, MaskedSSIMMetric, VolumeMetric

__all__ = ["MaskedPSNRMetric", "MaskedSSIMMetric", "VolumeMetric"]

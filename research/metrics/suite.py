"""The one place that decides how a generated volume is measured: every table is written from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from monai_diffens.metrics import SSIM_RADIUS, checked_volumes, psnr, ssim_map, ssim_maps
from research.metrics.detail import laplacian_of_gaussian, ms_ssim
from research.metrics.hfen import hfen
from research.metrics.inter_slice import inter_slice_error
from research.metrics.sharpness import sharpness_ratio

HFEN_SIGMA = 1.5
SHARPNESS_SIGMA = 1.0


def volume_metrics(
    pred: torch.Tensor,
    truth: torch.Tensor,
    mask: torch.Tensor,
    data_range: float,
    sharpness_axes: Sequence[int] = (0, 1, 2),
) -> dict[str, float]:
    """Measure one generated volume against its truth.

    Whole box: "psnr", "ssim" and "ms_ssim", of the volumes as given. Inside the mask, not eroded:
    "psnr_brain", "ssim_brain", "hfen", "inter_slice" and "sharpness". For these five the voxels outside the
    mask are first set to the truth's, so that they depend on nothing outside: masking an output, or not,
    changes none of them. (The edge of a skull-stripped brain is then shared by all outputs, and counts as
    detail.)

    Args:
        pred: generated volume, shape (X, Y, Z), each side at least 11.
        truth: real volume, shape (X, Y, Z), in the same unit.
        mask: what to measure inside (the brain), shape (X, Y, Z), not 0 inside.
        data_range: range of values that both may take, in their unit; the peak of PSNR.
        sharpness_axes: axes along which the truth is sharp, and sharpness is measured.

    Returns:
        Plain numbers by name:
            psnr, psnr_brain: in dB, infinite for equal voxels.
            ssim: mean of the 3D map (Gaussian window, sigma 1.5, 11 voxels a side) over the voxels whose
                window fits, as MONAI and skimage; ssim_brain: mean over the mask.
            ms_ssim: of three scales, which is not the usual one of five (:func:`~.masked.ms_ssim`); left out
                where a side has fewer than 44 voxels.
            hfen: high-frequency error norm, sigma 1.5 voxels; 0 is perfect.
            inter_slice: relative error of the steps between slices, mean of three axes; 0 is perfect.
            sharpness: std of the Laplacian of Gaussian, sigma 1 voxel, over the truth's; 1 is perfect.

    Raises:
        ValueError: shapes differ or are too small, a value is NaN or infinite, the mask is empty,
            data_range is not a positive number, or the truth is flat inside the mask.
    """
    pred, truth, inside = checked_volumes(pred, truth, mask)
    if min(truth.shape) < 2 * SSIM_RADIUS + 1:
        raise ValueError(
            f"each side must have {2 * SSIM_RADIUS + 1} voxels or more, got {tuple(truth.shape)}"
        )
    brain = torch.where(inside, pred, truth)
    interior = (slice(SSIM_RADIUS, -SSIM_RADIUS),) * 3
    fine_pred, fine_truth = (
        laplacian_of_gaussian(v, SHARPNESS_SIGMA, sharpness_axes)[inside] for v in (brain, truth)
    )
    edge_pred, edge_truth = (laplacian_of_gaussian(v, HFEN_SIGMA)[inside] for v in (brain, truth))
    full, structure = ssim_maps(pred, truth, data_range)
    values = {
        "psnr": psnr(pred, truth, data_range),
        "psnr_brain": psnr(pred[inside], truth[inside], data_range),
        "ssim": full[interior].mean(),
        "ssim_brain": ssim_map(brain, truth, data_range)[inside].mean(),
        "hfen": hfen(edge_pred, edge_truth),
        "inter_slice": inter_slice_error(brain, truth, inside),
        "sharpness": sharpness_ratio(fine_pred, fine_truth),
    }
    multi_scale = ms_ssim(pred, truth, data_range, structure)
    if multi_scale is not None:
        values["ms_ssim"] = multi_scale
    return {name: float(value) for name, value in values.items()}

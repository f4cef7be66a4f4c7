"""Inter-slice error: do neighbouring slices step as the truth's do (2D models tear between them)."""

from __future__ import annotations

import torch

from monai_diffens.metrics import VolumeMetric


def inter_slice_error(pred: torch.Tensor, truth: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Error of the steps from slice to slice, averaged over the three axes.

    For each axis, with d(v) = v[i + 1] - v[i] along it: mean |d(pred) - d(truth)| / mean |d(truth)|, both
    means over the pairs of neighbours that lie in the mask with both voxels.

    Args:
        pred: shape (X, Y, Z), floating point.
        truth: shape (X, Y, Z), floating point.
        inside: shape (X, Y, Z), bool.

    Returns:
        Scalar, no unit.

    Raises:
        ValueError: along some axis the mask has no pair of neighbours, or the truth does not vary.
    """
    errors = []
    for axis in range(3):
        both = inside.narrow(axis, 1, inside.shape[axis] - 1) & inside.narrow(axis, 0, inside.shape[axis] - 1)
        if not both.any():
            raise ValueError(f"mask has no two neighbouring voxels along axis {axis}")
        step_truth = truth.diff(dim=axis)[both]
        change = step_truth.abs().mean()
        if change == 0:
            raise ValueError(f"truth does not vary along axis {axis} inside the mask")
        errors.append((pred.diff(dim=axis)[both] - step_truth).abs().mean() / change)
    return torch.stack(errors).mean()


class InterSliceErrorMetric(VolumeMetric):
    """Inter-slice error, for each item and channel.

    The mean over the three axes of mean |d(y_pred) - d(y)| / mean |d(y)|, d being the difference of
    neighbouring slices along the axis, inside the mask (not eroded). 0 for equal steps, so a constant offset
    costs nothing; 1 for a flat prediction; slices that do not fit together exceed it. Lower is better.

    Args:
        background: see VolumeMetric.
        reduction: see VolumeMetric.
        get_not_nans: see VolumeMetric.
    """

    def _compute_volume(self, pred: torch.Tensor, truth: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        return inter_slice_error(pred, truth, inside)

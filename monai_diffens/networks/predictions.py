"""What one denoising step yields: of the experts, and of their fusion."""

# annotations stay types: TorchScript does not read `Tensor | None` of a NamedTuple from text
from typing import NamedTuple

from torch import Tensor


class EmptySpace(NamedTuple):
    """Where a case shows nothing, and what experts predict there without being run.

    Attributes:
        boxes: for each plane of the model those of :func:`~monai_diffens.networks.slice_passes.slice_boxes`.
        factor: their prediction over x_t, that of a clean sample of 0.
    """

    boxes: list[list[list[int]]]
    factor: float


class FusedPrediction(NamedTuple):
    """What one denoising step yields.

    Attributes:
        prediction: (B, 1, X, Y, Z).
        weights: (B, E, X, Y, Z), summing to 1 over E; (B, E, 1, 1, 1) where they are the same everywhere.
        bias: (B, 1, X, Y, Z), or zeros (1, 1, 1, 1, 1).
    """

    prediction: Tensor
    weights: Tensor
    bias: Tensor


class ExpertOutputs(NamedTuple):
    """What the experts of one denoising step yield.

    Attributes:
        predictions: (B, E, X, Y, Z), zero where an expert is not present.
        present: (B, E) bool: those that ran.
        features: each expert's decoder maps; empty where the fusion needs none.
        factors: (B, E) factors of the user, see :func:`~monai_diffens.networks.calibrator.average_weights`;
            None where all are 1.
    """

    predictions: Tensor
    present: Tensor
    features: list[list[Tensor]]
    factors: Tensor | None

"""Realism of a generated volume: distances between the features of its patches and of the real ones."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from monai.metrics import FIDMetric, MMDMetric
from torch import Tensor, nn

from monai_diffens.metrics import checked_volumes
from monai_diffens.networks.weights import load_weights
from research.realism.patch_encoder import PATCH_SIZE, PatchEncoder
from research.realism.patches import cut_patches, patch_corners, spread_evenly

ENCODER_FILE = Path(__file__).with_name("patch_encoder.pt")
STRIDE = 8
MAX_PATCHES = 256
BATCH_SIZE = 32
FREQUENCIES = 1024


class PatchRealism:
    """Compare the patches of a volume with those of its truth, as sets.

    Patches are 24 voxels a side, on a grid of 8 voxels, at least half of them inside the mask; where there
    are more than 256, 256 that lie evenly along the grid: a whole brain or a box of 80 voxels a side in it
    has 256. Voxels outside of the mask are the truth's, as for the other figures of the brain.

    "fid" is MONAI's FIDMetric: the Frechet distance of two Gaussians. "mmd" is MONAI's MMDMetric, the squared
    maximum mean discrepancy, which is of a linear kernel by itself: the features are given to it as random
    Fourier features (fixed seed) of a Gaussian kernel, whose width is the root of twice the number of
    features, a usual distance of real patches whose features have unit variance.

    Both are lower for more realistic volumes. FID of few patches is biased upwards, and patches that overlap
    and come from one volume are no independent samples: figures are only comparable at equal numbers of
    patches, with the same encoder and the same truth, never with published FIDs. MMD's estimate is unbiased
    for independent sets; here the two sets show the same places, and equal volumes give slightly less than 0.

    Args:
        encoder: patches (N, 1, 24, 24, 24) to features (N, F); of about unit variance, or MMD's kernel does
            not fit them.
        max_patches: at most so many patches.
    """

    def __init__(self, encoder: nn.Module, max_patches: int = MAX_PATCHES) -> None:
        self.encoder = encoder.eval()
        self.max_patches = max_patches
        self._truth: Tensor | None = None
        self._corners = torch.zeros(0, 3, dtype=torch.long)
        self._features = torch.zeros(0, 0)

    def __call__(self, pred: Tensor, truth: Tensor, mask: Tensor) -> dict[str, float]:
        """Figures of a generated volume.

        Args:
            pred: (X, Y, Z), 1 at about the truth's 99.5th foreground percentile.
            truth: (X, Y, Z), in the same unit. Its features are kept for the next call.
            mask: (X, Y, Z), not 0 inside.

        Returns:
            "fid" and "mmd"; nothing where there are not more patches than features.

        Raises:
            ValueError: as :func:`~research.metrics.suite.volume_metrics` of broken volumes.
        """
        pred, truth, inside = checked_volumes(pred, truth, mask)
        truth = truth.float()
        if self._truth is None or not torch.equal(truth, self._truth):
            corners = patch_corners(inside, PATCH_SIZE, STRIDE)
            self._corners = spread_evenly(corners, self.max_patches)
            self._features = self.features(truth)
            self._truth = truth
        real = self._features
        if len(real) <= real.shape[1]:
            return {}
        made = self.features(torch.where(inside, pred.float(), truth))
        fid = FIDMetric()(made, real)
        mmd = MMDMetric(y_mapping=GaussianKernelFeatures(real.shape[1]))(real, made)
        return {"fid": max(float(fid), 0.0), "mmd": float(mmd)}

    @torch.no_grad()
    def features(self, volume: Tensor) -> Tensor:
        """Features (N, F) of a volume (X, Y, Z), in double precision."""
        if not len(self._corners):
            return torch.zeros(0, 0, dtype=torch.double)
        patches = cut_patches(volume, self._corners, PATCH_SIZE).split(BATCH_SIZE)
        return torch.cat([torch.as_tensor(self.encoder(batch)).flatten(1) for batch in patches]).double()


class GaussianKernelFeatures:
    """Random Fourier features: their inner product is close to exp(-d^2 / (2 width^2)), and 1 at d = 0.

    Args:
        dimension: number of features F.
        width: of the kernel; the root of 2 F when None.
        frequencies: number of random directions; the seed is fixed.
    """

    def __init__(self, dimension: int, width: float | None = None, frequencies: int = FREQUENCIES) -> None:
        width = math.sqrt(2 * dimension) if width is None else width
        generator = torch.Generator().manual_seed(0)
        self.directions = torch.randn(dimension, frequencies, generator=generator).double() / width

    def __call__(self, features: Tensor) -> Tensor:
        """(N, 2 frequencies) of features (N, F)."""
        phases = features @ self.directions
        return torch.cat([phases.cos(), phases.sin()], dim=1) / math.sqrt(self.directions.shape[1])


def shipped_encoder() -> str:
    """The file of the encoder that comes with the package."""
    return str(ENCODER_FILE)


def patch_realism(encoder: str | Path | None = ENCODER_FILE) -> PatchRealism | None:
    """The metric with the encoder of a file.

    Args:
        encoder: weights of :class:`~research.realism.patch_encoder.PatchEncoder` with their SHA-256
            beside them, or any encoder in TorchScript, which is run: name only a file that you trust. None
            for no metric.

    Raises:
        SystemExit: with one line: the file is missing, damaged or replaced, or holds no encoder.
    """
    if encoder is None:
        return None
    path = Path(encoder)
    if path.with_name(path.name + ".sha256").is_file() or path == ENCODER_FILE:
        network = PatchEncoder()
        load_weights(network, path)
        return PatchRealism(network)
    try:
        return PatchRealism(torch.jit.load(str(path), map_location="cpu"))
    except (RuntimeError, ValueError, OSError) as error:
        raise SystemExit(f"{path}: no encoder in TorchScript ({type(error).__name__})") from error

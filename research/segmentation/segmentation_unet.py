"""The downstream task of the evaluation: MONAI's 3D U-Net that segments lesions, one network a fold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from monai.data import partition_dataset, select_cross_validation_folds
from monai.networks.nets import BasicUNet
from torch import Tensor, nn

from monai_diffens.acquisition.slicing import from_patches, pad_end, to_patches
from monai_diffens.messages import InputRejected
from monai_diffens.networks.weights import load_weights


class SegmentationUNet(nn.Module):
    """MONAI's BasicUNet (five levels, instance norm) behind a patch stem of 2: logits of one class.

    Args:
        in_channels: contrasts.
        channels: width of each of the five levels and of the last features.
    """

    def __init__(self, in_channels: int = 2, channels: Sequence[int] = (16, 24, 32, 48, 64, 16)) -> None:
        super().__init__()
        self.stem = 2
        self.divisor = self.stem * 2**4
        self.unet = BasicUNet(
            spatial_dims=3,
            in_channels=in_channels * self.stem**3,
            out_channels=self.stem**3,
            features=tuple(channels),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, 1, X, Y, Z) of scaled contrasts (B, C, X, Y, Z); sides of any length."""
        shape = image.shape[2:]
        # instance norm needs more than one voxel at the lowest level
        patches = to_patches(pad_end(image, self.divisor, 2 * self.divisor), self.stem)
        return from_patches(self.unet(patches), self.stem)[..., : shape[0], : shape[1], : shape[2]]


class SegmentationFolds(nn.Module):
    """The networks of all folds of a cross-validation side by side: one weight file, one pass.

    Args:
        num_folds: F.
        in_channels: of :class:`SegmentationUNet`.
        channels: of :class:`SegmentationUNet`.
    """

    def __init__(
        self,
        num_folds: int = 3,
        in_channels: int = 2,
        channels: Sequence[int] = (16, 24, 32, 48, 64, 16),
    ) -> None:
        super().__init__()
        self.folds = nn.ModuleList(SegmentationUNet(in_channels, channels) for _ in range(num_folds))

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, F, X, Y, Z), a channel a fold, of scaled contrasts (B, C, X, Y, Z)."""
        return torch.cat([network(image) for network in self.folds], dim=1)


def load_folds(network: SegmentationFolds, folder: str | Path) -> None:
    """Load ``fold_<number>/model.pt`` of each fold that train_segmentation.json trained.

    Raises:
        SystemExit: with one line, when weights are missing, damaged or do not fit.
    """
    for number, fold in enumerate(network.folds):
        load_weights(fold, Path(folder) / f"fold_{number}" / "model.pt")


def cross_validation_fold(
    items: Sequence[dict[str, str]], fold: int, num_folds: int, held_out: bool
) -> list[dict[str, str]]:
    """Items that one fold of a cross-validation leaves out, or all others.

    Args:
        items: cases; those without ``lesions`` are left out. Every ``num_folds``-th belongs to one fold, so
            that sources that lie side by side in the list are spread over the folds.
        fold: from 0.
        num_folds: folds altogether.
        held_out: the items that are left out, to validate on, instead of those to train on.

    Raises:
        InputRejected: no such fold, or fewer labelled items than folds.
    """
    labelled = [item for item in items if "lesions" in item]
    if not 0 <= fold < num_folds <= len(labelled):
        raise InputRejected(f"fold {fold} of {num_folds} cannot be made of {len(labelled)} labelled cases")
    parts = partition_dataset(labelled, num_partitions=num_folds)
    chosen = [number for number in range(num_folds) if (number == fold) == held_out]
    return list(select_cross_validation_folds(parts, chosen))

"""Figures as the paper takes them: in its box, background and all, beside those inside the brain."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from monai.transforms import ResizeWithPadOrCrop
from numpy.typing import NDArray
from torch import Tensor

from monai_diffens.metrics import SSIM_RADIUS, psnr, ssim_map
from research.studies.sweep import Realism

BOX = (192, 192, 152)  # voxels of 1 mm
DIFFERENCE = "difference"  # column: which file holds result less truth


class PaperFigures:
    """PSNR and SSIM in the paper's box, with intensities over the truth's maximum; and further figures.

    What the paper calls MMD is the squared distance of two mean volumes, which only all cases together have:
    result less truth is kept of each, for :func:`mean_difference`.

    Args:
        folder: that keeps them, half precision, compressed.
        further: more figures of (result, truth, mask); none when None.
    """

    def __init__(self, folder: Path, further: Realism | None = None) -> None:
        self.folder, self.further = folder, further
        self.box = ResizeWithPadOrCrop(BOX)

    def __call__(self, result: Tensor, truth: Tensor, mask: Tensor) -> dict[str, Any]:
        """Figures of a result (X, Y, Z), in the truth's unit: "psnr_paper", "ssim_paper", the file's name."""
        made, real = (
            torch.as_tensor(self.box(volume[None].float() / truth.max()))[0] for volume in (result, truth)
        )
        inner = (slice(SSIM_RADIUS, -SSIM_RADIUS),) * 3
        name = uuid4().hex
        self.folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(self.folder / name, (made - real).half().numpy())
        figures: dict[str, Any] = {
            "psnr_paper": float(psnr(made, real, 1.0)),
            "ssim_paper": float(ssim_map(made, real, 1.0)[inner].mean()),
            DIFFERENCE: name,
        }
        return figures | dict(self.further(result, truth, mask) if self.further else {})


def mean_difference(folder: Path, names: Iterable[str]) -> float:
    """Squared distance of the mean of results and the mean of truths, over the voxels of the box.

    Args:
        folder: of :class:`PaperFigures`.
        names: of the files.
    """
    total: NDArray[np.floating] = np.zeros(BOX, dtype=np.float32)
    count = 0
    for name in names:
        with np.load(folder / f"{name}.npz") as file:
            total += file["arr_0"]
        count += 1
    return float(np.square(total / count, dtype=np.float64).sum())

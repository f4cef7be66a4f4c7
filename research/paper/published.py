"""The paper's own numbers (arXiv 2501.07430, v2): PSNR / dB, SSIM, its MMD, its 3D-FID x 1e-4."""

from __future__ import annotations

from typing import NamedTuple

from research.baselines.training_targets import MATCHED, TEMPLATE

SR, MT, BOTH = "SR", "MT", "both"
TASKS = {
    SR: "super-resolution of a volume pooled by 4 along every axis",
    MT: "FLAIR from contrast-enhanced T1w",
    BOTH: "FLAIR from contrast-enhanced T1w and its own volume pooled by 4",
}


class Published(NamedTuple):
    """Figures of one method for one task; None where the paper has none."""

    psnr: float
    ssim: float
    mmd: float
    fid: float


PUBLISHED: dict[str, dict[str, Published]] = {
    "3D U-Net regression": {
        SR: Published(31.23, 0.892, 116, 59.6),
        MT: Published(23.43, 0.809, 488, 274),
        BOTH: Published(32.95, 0.922, 43.3, 43.9),
    },
    "one plane": {
        SR: Published(29.26, 0.894, 40.9, 13.5),
        MT: Published(22.68, 0.784, 284, 85.9),
        BOTH: Published(33.6, 0.939, 34.9, 9.3),
    },
    "alternate": {
        SR: Published(32.23, 0.922, 29.4, 17.3),
        MT: Published(25.35, 0.868, 176, 186),
        BOTH: Published(35.12, 0.945, 14.5, 22.2),
    },
    "mean": {
        SR: Published(33.02, 0.945, 30.9, 35.6),
        MT: Published(25.47, 0.874, 1419, 251),
        BOTH: Published(35.21, 0.946, 8.2, 13.6),
    },
    "fused": {
        SR: Published(33.31, 0.945, 13.5, 6.6),
        MT: Published(25.13, 0.876, 193, 130),
        BOTH: Published(36.37, 0.964, 5.4, 3.8),
    },
}
NO_ROW = "no row of its own"
ROWS = {  # row of the table -> what the paper calls it
    "3D U-Net regression": "U-Net 3D",
    "one plane": "Palette 2D",
    "alternate": "TPDM",
    "mean": "MADM: mean of three planes, 2.5D",
    "fused": "Diff-Ensembler, three planes, 2.5D",
    MATCHED: NO_ROW,
    TEMPLATE: NO_ROW,
}
DIFFERS = (
    "The published rows are of 251 BraTS 2021 cases, of networks of 55 M parameters a plane trained on some "
    "1,000 subjects, of 50 sampling steps, of FID in another network's features and another unit: only their "
    "order compares."
)

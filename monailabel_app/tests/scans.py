"""Made-up heads in a studies folder; no real scan is needed to see what a server does to a grid."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE, THICKNESS = (40, 44, 60), 5
# Oblique, left-handed, away from the origin: whatever is lost of it shows.
AFFINE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.1, -0.15, 0.2) @ np.diag([-1.0, 1.0, 1.0]), (31.0, -47.0, 12.5)
)


def head(seed: int, brightness: float = 1.0) -> np.ndarray:
    """(X, Y, Z) float32, an ellipsoid of smooth texture, 0 outside, up to some hundreds."""
    place = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    waves = np.random.default_rng(seed).uniform(2, 9, (6, 3))
    texture = sum(np.cos(np.tensordot(wave, place, 1) + 2 * wave[0]) for wave in waves)
    volume = brightness * (300 + 40 * texture)
    return np.where((place**2).sum(0) < 0.85, volume, 0).astype(np.float32)


def write_studies(folder: Path) -> None:
    """A patient with thick slices, two with sharp images, a patient of several contrasts, and bad files.

    Args:
        folder: made.
    """
    folder.mkdir()
    thick = head(1).reshape(*SHAPE[:2], -1, THICKNESS).mean(-1)
    place = AFFINE @ nib.affines.from_matvec(np.diag([1, 1, THICKNESS]), (0, 0, (THICKNESS - 1) / 2))
    write(thick, place, folder / "sub-01_T1w.nii.gz")
    for name in ("sub-02_T1w", "sub-03_T1w", "sub-04_T1w", "sub-04_T2w"):
        write(head(2), AFFINE, folder / f"{name}.nii.gz")
    write(thick, place, folder / "sub-04_FLAIR.nii.gz")
    whole = (folder / "sub-01_T1w.nii.gz").read_bytes()
    (folder / "cut_T1w.nii.gz").write_bytes(whole[: len(whole) // 2])
    write(np.full(SHAPE, 7, np.float32), AFFINE, folder / "flat_T1w.nii.gz")


def write(volume: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write a volume (X, Y, Z) as integers."""
    image = nib.Nifti1Image(volume.astype(np.int16), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)

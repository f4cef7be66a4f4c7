"""Faults 18 and 19 and their kinds: a scan is above zero where its own voxels are, whose size stays."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter

from monai_diffens.transforms.conditions import StackConditionsd
from monai_diffens.transforms.one_grid import OneGridd
from monai_diffens.transforms.target_grid import KeepInPlaned, RestoreToSpacingd

KEYS = ("T1w", "ce-gadolinium_T1w", "T2w", "FLAIR")
SIDE = 40  # mm


def stripped(spacing, turn: float = 0.0) -> MetaTensor:
    """A skull-stripped ball of hard edges and even texture, 0 outside, in the middle of a field of 40 mm."""
    shape = [round(SIDE / step) for step in spacing]
    turned = nib.eulerangles.euler2mat(z=turn) @ np.diag(spacing)
    affine = nib.affines.from_matvec(turned, -turned @ ((np.array(shape) - 1) / 2))
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    away = np.linalg.norm(nib.affines.apply_affine(affine, voxels), axis=-1)
    texture = 1 + 0.2 * gaussian_filter(np.random.default_rng(0).normal(size=shape), 1)
    return MetaTensor(torch.from_numpy((away < 13) * texture).float()[None], affine=torch.as_tensor(affine))


def outside(result: MetaTensor) -> torch.Tensor:
    """Voxels further from the middle than a slice of any scan here could show."""
    shape = result.shape[1:]
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    away = np.linalg.norm(nib.affines.apply_affine(np.asarray(result.affine), voxels), axis=-1)
    return torch.from_numpy(away > 13 + 5)


@pytest.mark.parametrize(
    "scans",
    [
        {"T1w": (1, 1, 5), "T2w": (1, 1, 5)},
        {"T1w": (1, 1, 5), "T2w": (5, 1, 1)},
        {"T1w": (1, 5, 1)},
        {"T2w": (1, 1, 4), "ce-gadolinium_T1w": (1, 4, 1), "T1w": (4, 1, 1)},
        {"T1w": (1, 1, 5), "FLAIR": (1, 1, 5)},
        {"T1w": (4, 4, 4)},
        {"FLAIR": (1, 1, 5)},
    ],
    ids=str,
)
@pytest.mark.parametrize("turn", [0.0, 0.2])
def test_18_nothing_is_brain_where_no_scan_showed_any(scans, turn):
    data = {key: stripped(spacing, turn * (key == "T2w")) for key, spacing in scans.items()}
    stack = StackConditionsd(KEYS)(OneGridd(KEYS, register="never")(data | {"case": "a"}))["image"]
    beyond = outside(stack)
    assert beyond.float().mean() > 0.2
    assert not (stack.as_tensor()[:, beyond] > 0).any()
    assert (stack > 0).any(dim=0).float().mean() > 0.1


@pytest.mark.parametrize(
    "spacing", [(0.72, 0.72, 5.0), (0.5, 0.9, 4.0), (5.0, 0.6, 0.6), (0.45, 0.45, 3.0), (0.8, 6.0, 0.7)]
)
def test_19_in_plane_voxels_stay_unless_another_size_is_asked_for(spacing):
    wanted = [step if step < 1 else 1.0 for step in spacing]
    for asked in (None, 1.0):
        scan = stripped(spacing)
        data = RestoreToSpacingd("image", spacing=asked, scan_key="scan")({"image": scan, "case": "a"})
        data["pred"] = data["image"].clone()
        result = KeepInPlaned()(data)["pred"]
        np.testing.assert_allclose(result.pixdim, wanted if asked is None else (1, 1, 1), rtol=0.03)
        extent = np.array(result.shape[1:]) * np.asarray(result.pixdim)
        np.testing.assert_allclose(extent, np.array(scan.shape[1:]) * spacing, atol=0.6)

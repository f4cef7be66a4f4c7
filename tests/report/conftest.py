"""A described case, as it reaches the report."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_diffens.transforms.describe import DescribeResultd
from monai_diffens.transforms.intensity import ScaleForegroundPercentiled
from monai_diffens.transforms.target_grid import RestoreToSpacingd

MAPS = ["std", "weight-axial", "weight-coronal", "weight-sagittal"]


@pytest.fixture
def described() -> dict:
    """A ball in 4 mm slices, its result, spread and weights, and what was measured on them."""
    shape = (40, 48, 9)
    grid = torch.meshgrid(*(torch.linspace(-1.2, 1.2, n) for n in shape), indexing="ij")
    ball = (sum(axis**2 for axis in grid) < 1) * (300 + 200 * grid[0])  # brighter to the right
    affine = np.diag([1, 1, 4, 1.0])
    affine[:3, 3] = (-20, 5, 7)
    scan = MetaTensor(ball[None], affine=affine, meta={"filename_or_obj": "/somewhere/secret/scan.nii.gz"})
    data = ScaleForegroundPercentiled("image")({"image": scan, "case": "scan", "warnings": []})
    data = RestoreToSpacingd("image", scan_key="scan")(data)
    pred = data["image"].clone()
    pred[pred < 0] = 0
    inside = pred > 0
    data |= {"pred": pred, "pred_std": 0.03 * pred}
    for name, share in zip(MAPS[1:], (0.5, 0.3, 0.2), strict=True):
        data[f"pred_{name}"] = share * inside
    describe = DescribeResultd(
        maps=MAPS, parameters={"num_steps": 4, "fusion": "calibrated", "restart": None}
    )
    return describe(data)

"""In-plane resolution that a scan has comes back, and the result still agrees with it."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter

from monai_diffens.transforms.describe import DescribeResultd
from monai_diffens.transforms.target_grid import KeepInPlaned, RestoreToSpacingd, working_spacing
from monai_diffens.transforms.thick_slices import measurement_from_meta


def thick_scan(spacing=(0.72, 0.72, 4.0), shape=(60, 56, 12)) -> MetaTensor:
    """In-plane noise of a correlation below 1 mm, bright in a ball."""
    noise = gaussian_filter(np.random.default_rng(0).normal(size=shape), (0.7, 0.7, 0.5))
    places = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    values = (np.square(places).sum(0) < 0.8) * (1 + noise)
    origin = [-s * (n - 1) / 2 + 5 for s, n in zip(spacing, shape, strict=True)]
    affine = nib.affines.from_matvec(np.diag(spacing), origin)
    return MetaTensor(torch.from_numpy(values).float().clamp(min=0)[None], affine=torch.as_tensor(affine))


def restored(scan: MetaTensor, spacing=None) -> dict:
    """As the pipeline has it, with the restored scan for the network's result and a map beside it."""
    data = RestoreToSpacingd("image", spacing=spacing, scan_key="scan")({"image": scan, "case": "a"})
    detail = torch.randn(data["image"].shape, generator=torch.Generator().manual_seed(0))
    network = data["image"] + 0.05 * detail * (data["image"] > 0.2)
    data["pred"] = MetaTensor(network.clamp(min=0).as_tensor(), meta=dict(data["image"].meta))
    data["pred_std"] = MetaTensor(torch.ones_like(data["pred"].as_tensor()), meta=dict(data["image"].meta))
    return data


def high_frequencies(slices: np.ndarray) -> float:
    """Power in plane above half of Nyquist, averaged over slices (X, Y, Z)."""
    power = np.abs(np.fft.fftn(slices, axes=(0, 1))) ** 2
    x, y = (np.abs(np.fft.fftfreq(n)) for n in slices.shape[:2])
    return float(power[(x[:, None] > 0.25) | (y > 0.25)].mean())


def test_a_fine_scan_comes_back_on_its_own_pixels():
    scan = thick_scan()
    data = KeepInPlaned(maps=["std"])(restored(scan))
    result = data["pred"]
    assert tuple(result.shape[1:]) == (60, 56, 48)
    np.testing.assert_allclose(result.pixdim, (0.72, 0.72, 1.0), atol=1e-6)
    corners = [np.array([-0.5, -0.5, -0.5, 1]), np.array([*(n - 0.5 for n in result.shape[1:]), 1])]
    there = [np.asarray(result.affine) @ corner for corner in corners]
    own = [np.array([-0.5, -0.5, -0.5, 1]), np.array([*(n - 0.5 for n in scan.shape[1:]), 1])]
    np.testing.assert_allclose(there, [np.asarray(scan.affine) @ corner for corner in own], atol=1e-6)
    assert data["pred_std"].shape == result.shape and torch.allclose(data["pred_std"], torch.ones(1))
    assert torch.equal(data["scan"].as_tensor(), scan.as_tensor())


def test_sliced_thick_again_it_is_the_scan():
    data = DescribeResultd()(KeepInPlaned()(restored(thick_scan())))
    agreement = data["facts"]["Consistency"]
    assert agreement["MeanAbsoluteDifference"] < 3e-3 and agreement["MaximumAbsoluteDifference"] < 8e-2


def test_in_plane_detail_is_at_least_the_scans():
    scan = thick_scan()
    data = KeepInPlaned()(restored(scan))
    result = data["pred"]
    measurement = measurement_from_meta(result.shape[1:], result.meta)
    again = measurement(result.as_tensor())[0].numpy()
    own = high_frequencies(scan[0].numpy())
    assert high_frequencies(again) > 0.98 * own
    assert high_frequencies(result[0].numpy()) > 0.9 * own
    averaged = restored(scan, spacing=1.0)["scan"]  # what was given back before
    assert averaged.shape[1] < scan.shape[1]


def test_nothing_is_done_where_the_scan_has_no_finer_axis_or_another_spacing_is_asked_for():
    plain = restored(thick_scan((1.0, 1.0, 4.0)))
    assert KeepInPlaned()(plain)["pred"] is plain["pred"]
    asked = restored(thick_scan(), spacing=1.0)
    assert KeepInPlaned()(asked)["pred"] is asked["pred"]
    alone = {"pred": plain["pred"]}
    assert KeepInPlaned()(alone)["pred"] is plain["pred"]


def test_background_stays_zero_inside_only():
    data = restored(thick_scan())
    data["pred"] = data["pred"] * (data["image"] > 0.3)
    refined = KeepInPlaned(inside_only=True)(data)["pred"]
    corner = refined[0, :4, :4]
    assert not corner.any() and (refined >= 0).all()


@pytest.mark.parametrize(("asked", "works"), [(None, 1.0), ("auto", 1.0), (0.8, 0.8)])
def test_the_network_works_at_1_mm_unless_asked(asked, works):
    assert working_spacing(asked) == (works,) * 3

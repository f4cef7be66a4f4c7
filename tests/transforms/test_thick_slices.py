"""Simulated thick slices: what the scan shows, on the same grid, with a record that rebuilds the operator."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.data.utils import list_data_collate

from monai_diffens.acquisition.measurement import PROFILES
from monai_diffens.acquisition.slicing import PLANES, in_plane_axes, plane_axis
from monai_diffens.transforms.augmentation import SHARP_PLANE_KEY
from monai_diffens.transforms.thick_slices import (
    SAMPLING_KEY,
    RandThickSlicesd,
    ThickSlicesd,
    measurement_for,
    measurement_from_meta,
    thick_slice,
)

SHAPE = (16, 12, 20)
AFFINE = torch.tensor([[0, -1, 0, 5], [1, 0, 0, -7], [0, 0, 2, 3], [0, 0, 0, 1]], dtype=torch.float64)
SETTINGS = [((1, 1, 5), "box"), ((2.5, 1, 1), "gaussian"), ((1, 4, 1), "box"), ((4, 4, 4), "box")]

every_setting = pytest.mark.parametrize(("factors", "profile"), SETTINGS, ids=str)


def scan() -> MetaTensor:
    """A fine volume (1, X, Y, Z) with an affine and a name."""
    return MetaTensor(torch.rand(1, *SHAPE), affine=AFFINE, meta={"filename_or_obj": "scan.nii"})


@every_setting
def test_volume_becomes_the_restored_scan_on_its_own_grid(factors, profile):
    volume = scan()
    result = ThickSlicesd("image", factors, profile)({"image": volume})["image"]
    measurement = measurement_for(SHAPE, factors, profile)
    assert result.shape == volume.shape and result.dtype == torch.float32
    assert torch.equal(result.affine, AFFINE) and result.meta["filename_or_obj"] == "scan.nii"
    torch.testing.assert_close(result.as_tensor(), measurement.restore(measurement(volume.as_tensor())))
    # the scan of the result is the scan of the volume, so that thick-slicing again changes nothing
    torch.testing.assert_close(measurement(result), measurement(volume), rtol=0, atol=1e-5)
    torch.testing.assert_close(thick_slice(result, factors, profile), result, rtol=0, atol=1e-5)
    assert (result - volume).std() > 0.1


def test_pooled_setting_measures_as_average_pooling():
    volume = scan()
    degraded = thick_slice(volume, (4, 4, 4))
    torch.testing.assert_close(
        F.avg_pool3d(degraded.as_tensor(), 4), F.avg_pool3d(volume.as_tensor(), 4), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("factors", [(1, 1, 1), (0.5, 1, 1), (1, 3, 1.2)], ids=str)
def test_factors_of_one_or_less_leave_an_axis_fine(factors):
    measurement = measurement_for(SHAPE, factors)
    assert [axis is None for axis in measurement.axes] == [factor <= 1 for factor in factors]


def test_thickness_and_profile_reach_every_thick_axis():
    measurement = measurement_for(SHAPE, (1, 3, 5), "gaussian", thickness=2)
    assert [(axis.factor, axis.thickness, axis.profile) for axis in measurement.axes[1:]] == [
        (3, 2, "gaussian"),
        (5, 2, "gaussian"),
    ]


@every_setting
def test_meta_rebuilds_the_operator_also_from_a_batch(factors, profile):
    volume = scan()
    item = ThickSlicesd("image", factors, profile)({"image": volume})
    batched = list_data_collate([item])["image"]
    for meta in (item["image"].meta, batched.meta):
        rebuilt = measurement_from_meta(SHAPE, meta)
        assert rebuilt.axes == measurement_for(SHAPE, factors, profile).axes


def test_volume_without_a_record_has_no_measurement():
    assert measurement_from_meta(SHAPE, scan().meta) is None


@pytest.mark.parametrize("factors", [(1, 1, 5), (1, 1, 1)], ids=str)
def test_input_is_left_as_it_was(factors):
    volume = scan()
    before = volume.as_tensor().clone()
    data = {"image": volume, "other": 1}
    result = ThickSlicesd("image", factors)(data)
    assert result["other"] == 1 and data["image"] is volume
    assert torch.equal(volume.as_tensor(), before)
    assert SAMPLING_KEY not in volume.meta and SAMPLING_KEY in result["image"].meta


def test_plain_tensors_pass():
    volume = scan().as_tensor()
    result = thick_slice(volume, (1, 1, 5))
    assert type(result) is torch.Tensor
    torch.testing.assert_close(result, thick_slice(MetaTensor(volume), (1, 1, 5)).as_tensor())


@pytest.mark.parametrize("transform", [ThickSlicesd("a", (1, 1, 5)), RandThickSlicesd("a")])
def test_absent_key_is_an_error_unless_allowed(transform):
    with pytest.raises(KeyError, match="a"):
        transform({"b": scan()})
    transform.allow_missing_keys = True
    volume = scan()
    assert transform({"b": volume})["b"] is volume


# --- the random twin --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool_prob", [0.0, 1.0])
def test_random_transform_is_its_deterministic_twin_with_what_it_drew(pool_prob):
    transform = RandThickSlicesd(["image", "second"], pool_prob=pool_prob).set_random_state(3)
    data = {"image": scan(), "second": scan()}
    result = transform(data)
    for key, volume in data.items():
        expected = thick_slice(volume, transform.factors, transform.profile)
        assert torch.equal(result[key].as_tensor(), expected.as_tensor())
        np.testing.assert_array_equal(result[key].meta[SAMPLING_KEY], expected.meta[SAMPLING_KEY])


def drawn(count: int = 400, **options) -> list[tuple[tuple[float, ...], str]]:
    """Return (factors, profile) of many draws."""
    transform = RandThickSlicesd("image", **options).set_random_state(0)
    draws = []
    for _ in range(count):
        transform.randomize()
        draws.append((transform.factors, transform.profile))
    return draws


@pytest.mark.parametrize("gaussian_prob", [0.0, 0.3, 1.0])
def test_one_axis_is_drawn_with_a_factor_in_range(gaussian_prob):
    draws = drawn(pool_prob=0.0, factor_range=(2.0, 6.0), gaussian_prob=gaussian_prob)
    factors = np.array([factors for factors, _ in draws])
    thick = factors[factors > 1]
    assert ((factors > 1).sum(axis=1) == 1).all()
    assert thick.min() >= 2 and thick.max() <= 6
    assert thick.min() < 2.2 and thick.max() > 5.8  # the whole range
    assert ((factors > 1).mean(axis=0) > 0.25).all()  # every axis
    assert {profile for _, profile in draws} <= set(PROFILES)
    # 3 standard deviations of 400 draws
    assert abs(np.mean([profile == "gaussian" for _, profile in draws]) - gaussian_prob) < 0.07


@pytest.mark.parametrize("pool_prob", [0.0, 0.4, 1.0])
def test_pooled_setting_comes_as_often_as_asked(pool_prob):
    pooled = [draw for draw in drawn(pool_prob=pool_prob, pool_factor=3.0) if min(draw[0]) > 1]
    assert set(pooled) <= {((3.0, 3.0, 3.0), "box")}
    assert abs(len(pooled) / 400 - pool_prob) < 0.08


@pytest.mark.parametrize("pool_prob", [0.0, 1.0])
@pytest.mark.parametrize("plane", PLANES)
def test_a_volume_of_thick_slices_is_degraded_along_its_sharp_plane_alone(plane, pool_prob):
    transform = RandThickSlicesd("image", pool_prob=pool_prob).set_random_state(0)
    seen = set()
    for _ in range(12):
        result = transform({"image": scan(), SHARP_PLANE_KEY: plane})
        seen |= {axis for axis, factor in enumerate(transform.factors) if factor > 1}
        assert result["image"].meta[SAMPLING_KEY][plane_axis(plane)].tolist() == [0, 1, 1, 0]
    assert seen == set(in_plane_axes(plane))


def test_random_state_repeats_the_draws():
    first, again, other = (
        RandThickSlicesd("image", pool_prob=0).set_random_state(seed) for seed in (7, 7, 8)
    )
    volume = scan()
    results = [transform({"image": volume})["image"].as_tensor() for transform in (first, again, other)]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])

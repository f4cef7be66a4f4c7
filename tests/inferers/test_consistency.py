"""The measurement and what restores it: thick slices against known answers, exact for any axis and factor."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from samplings import FACTORS, SHAPE, along, every_sampling, thick_everywhere

from monai_diffens.acquisition.measurement import FWHM_TO_SIGMA, PROFILES, AxisSampling, Measurement
from monai_diffens.transforms.thick_slices import measurement_for

# --- A --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factors", [(4, 4, 4), (2, 3, 5), (1, 1, 4), (3, 1, 1)], ids=str)
def test_box_is_average_pooling_for_integer_factors(factors):
    volume = torch.rand(2, 1, *(3 * factor for factor in factors))
    measurement = Measurement([AxisSampling.from_factor(3 * factor, factor) for factor in factors])
    torch.testing.assert_close(measurement(volume), F.avg_pool3d(volume, factors), rtol=0, atol=1e-6)


@every_sampling
@pytest.mark.parametrize("size", [40, 33, 7])
def test_rows_are_averages_centred_on_their_slice(factor, coverage, profile, size):
    axis = AxisSampling.from_factor(size, factor, factor * coverage, profile)
    matrix = axis.measure()
    assert matrix.shape == (axis.n_low, size) == (max(1, round(size / factor)), size)
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-12)  # both grids share their centre
    np.testing.assert_allclose(np.diff(axis.slice_centres), factor)
    inside = (axis.slice_centres > 2 * axis.thickness) & (axis.slice_centres < size - 1 - 2 * axis.thickness)
    # a voxel in part covered counts at its centre, which shifts the average by 1/8 voxel a voxel of thickness
    shift = (matrix @ np.arange(size) - axis.slice_centres)[inside]
    assert (np.abs(shift) <= 0.125 / axis.thickness + 1e-6).all()


def test_box_covers_voxels_by_the_part_that_lies_in_the_slice():
    # centres 1.25 and 3.75: slices from 0 to 2.5 and from 2.5 to 5; voxel i reaches from i - 0.5 to i + 0.5
    matrix = AxisSampling(n_high=6, n_low=2, factor=2.5, thickness=2.5).measure()
    np.testing.assert_allclose(matrix * 2.5, [[0.5, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0.5]], atol=1e-12)


def test_box_leaves_gaps_out():
    matrix = AxisSampling(n_high=12, n_low=3, factor=4, thickness=2).measure()
    np.testing.assert_allclose(matrix[1], [0, 0, 0, 0, 0, 0.5, 0.5, 0, 0, 0, 0, 0], atol=1e-12)
    unseen = np.abs(matrix).sum(axis=0) == 0
    np.testing.assert_array_equal(unseen, [True, False, False, True] * 3)


def test_gaussian_thickness_is_the_full_width_at_half_maximum():
    axis = AxisSampling(n_high=2001, n_low=1, factor=1, thickness=200, profile="gaussian")
    row = axis.measure()[0]
    position = np.arange(2001) - 1000
    np.testing.assert_allclose(row[[900, 1100]] / row.max(), 0.5, rtol=1e-3)
    np.testing.assert_allclose(np.sqrt(row @ position**2), 200 * FWHM_TO_SIGMA, rtol=1e-4)
    np.testing.assert_allclose(row / row.max(), np.exp(-4 * np.log(2) * (position / 200) ** 2), atol=1e-4)


def test_slice_outside_the_grid_measures_nothing():
    matrix = AxisSampling(n_high=4, n_low=3, factor=6, thickness=2).measure()
    np.testing.assert_array_equal(matrix.sum(axis=1), [0, 1, 0])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_only_the_thick_axis_changes(axis):
    measurement = along(axis, 5)
    volume = torch.rand(1, 1, *SHAPE)
    expected = torch.einsum(
        "ijk,lj->ilk",
        volume[0, 0].movedim(axis, 1),
        torch.as_tensor(measurement.axes[axis].measure(), dtype=torch.float32),
    ).movedim(1, axis)
    torch.testing.assert_close(measurement(volume)[0, 0], expected, rtol=0, atol=1e-6)


# --- B, interpolation, and B (A B)^-1, the restored scan ---------------------------------------------------


@every_sampling
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_restored_scan_measured_again_is_the_scan(factor, coverage, profile, axis):
    measurement = along(axis, factor, coverage, profile)
    scan = measurement(torch.rand(1, 1, *SHAPE))
    restored = measurement.restore(scan)
    assert restored.shape == (1, 1, *SHAPE)
    torch.testing.assert_close(measurement(restored), scan, rtol=0, atol=1e-5)


@pytest.mark.parametrize("profile", PROFILES)
def test_restored_scan_agrees_when_every_axis_is_thick(profile):
    measurement = thick_everywhere(profile=profile)
    scan = torch.rand(2, 1, *measurement(torch.zeros(SHAPE)).shape)  # any scan, also one of no volume
    torch.testing.assert_close(measurement(measurement.restore(scan)), scan, rtol=0, atol=2e-5)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("size", [40, 33])
def test_interpolation_of_a_ramp_is_the_ramp_between_the_outer_slices(factor, size):
    axis = AxisSampling.from_factor(size, factor)
    line = axis.interpolate() @ axis.slice_centres
    expected = np.clip(np.arange(size), axis.slice_centres[0], axis.slice_centres[-1])
    np.testing.assert_allclose(line, expected, atol=1e-9)


@pytest.mark.parametrize("n_low", [1, 2, 3])
def test_few_slices_are_interpolated_linearly(n_low):
    axis = AxisSampling(n_high=4 * n_low, n_low=n_low, factor=4, thickness=4)
    values = np.array([1.0, 5.0, -2.0])[:n_low]
    expected = np.interp(np.arange(4 * n_low), axis.slice_centres, values)
    np.testing.assert_allclose(axis.interpolate() @ values, expected, atol=1e-12)
    measurement = Measurement([axis, None, None])
    scan = torch.rand(n_low, 3, 2)
    torch.testing.assert_close(measurement(measurement.restore(scan)), scan, rtol=0, atol=1e-5)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("size", [4, 12, 33], ids="{} voxels".format)
def test_constant_volumes_stay_constant(factor, profile, size):
    shape = (size, size, size)
    measurement = thick_everywhere(factor, profile, shape)
    volume = torch.full((1, 1, *shape), 0.7)
    scan = measurement(volume)
    torch.testing.assert_close(scan, torch.full_like(scan, 0.7), rtol=0, atol=1e-6)
    for fine in (measurement.interpolate(scan), measurement.restore(scan)):
        torch.testing.assert_close(fine, volume, rtol=0, atol=1e-5)


@pytest.mark.parametrize("profile", PROFILES)
def test_restoring_undoes_the_blur_that_interpolation_leaves(profile):
    axis = AxisSampling.from_factor(60, 5, profile=profile)
    wave = np.cos(2 * np.pi * np.arange(60) / 20)
    wave = torch.as_tensor(wave)[:, None, None]
    measurement = Measurement([axis, None, None])
    scan = measurement(wave)
    inside = slice(10, 50)
    blurred = (measurement.interpolate(scan) - wave)[inside].square().mean().sqrt()
    restored = (measurement.restore(scan) - wave)[inside].square().mean().sqrt()
    assert restored < 0.35 * blurred


# --- tensors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["__call__", "interpolate", "restore", "null_space"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_leading_axes_and_meta_are_kept(operation, dtype):
    measurement = along(1, 5)
    fine = operation in ("__call__", "null_space")
    volume = torch.rand(2, 3, *SHAPE).to(dtype) if fine else measurement(torch.rand(2, 3, *SHAPE)).to(dtype)
    apply = measurement.null_space() if operation == "null_space" else getattr(measurement, operation)
    result = apply(volume)
    assert result.dtype == dtype
    assert result.shape == (2, 3, 20, 4 if operation == "__call__" else 21, 19)
    torch.testing.assert_close(apply(volume[0, 0]), result[0, 0], rtol=0, atol=1e-6)

    tagged = apply(MetaTensor(volume, meta={"filename_or_obj": "scan.nii"}))
    assert isinstance(tagged, MetaTensor) and tagged.meta["filename_or_obj"] == "scan.nii"
    assert torch.equal(tagged.as_tensor(), result)


def test_fine_axes_cost_nothing_and_change_nothing():
    measurement = Measurement([None, None, None])
    volume = torch.rand(1, 1, *SHAPE)
    for result in (measurement(volume), measurement.interpolate(volume), measurement.null_space()(volume)):
        assert torch.equal(result, volume)


def test_gradients_pass():
    measurement = thick_everywhere()
    volume = torch.rand(*SHAPE, requires_grad=True)
    measurement(volume).sum().backward()
    columns = [torch.as_tensor(axis.measure().sum(axis=0), dtype=torch.float32) for axis in measurement.axes]
    torch.testing.assert_close(volume.grad, torch.einsum("i,j,k->ijk", *columns), rtol=1e-5, atol=1e-6)


# --- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"n_high": 0}, {"n_low": 0}, {"factor": 0.0}, {"factor": -2.0}, {"thickness": 0.0}, {"thickness": -1.0}],
    ids=str,
)
def test_sampling_must_be_positive(options):
    with pytest.raises(ValueError, match="must be positive"):
        AxisSampling(**{"n_high": 8, "n_low": 2, "factor": 4.0, "thickness": 4.0} | options)


def test_a_thickness_of_zero_is_not_taken_for_none():
    with pytest.raises(ValueError, match="must be positive"):
        AxisSampling.from_factor(8, 4, thickness=0)


def test_unknown_profile_is_named():
    with pytest.raises(ValueError, match="unknown slice profile 'sinc': use one of box, gaussian"):
        AxisSampling.from_factor(8, 4, profile="sinc")


@pytest.mark.parametrize("count", [2, 4])
def test_three_axes_are_needed(count):
    with pytest.raises(ValueError, match=f"three axes, got {count}"):
        Measurement([None] * count)


def test_volume_of_another_size_is_refused():
    with pytest.raises(RuntimeError):
        along(0, 5)(torch.rand(1, 1, 24, 21, 19))


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint8, torch.bool])
def test_integer_volume_is_refused_instead_of_measured_as_zero(dtype):
    with pytest.raises(TypeError, match="floating point"):
        along(0, 5)(torch.ones(SHAPE, dtype=dtype))


@pytest.mark.parametrize("factors", [(1, 1, 5), (4, 4, 4)], ids=str)
def test_a_scan_restored_inside_its_support_agrees_and_is_nearer_to_the_truth(factors):
    shape = (24, 24, 40)
    grid = torch.meshgrid(*(torch.linspace(-1.2, 1.2, n) for n in shape), indexing="ij")
    support = sum(axis**2 for axis in grid) < 1
    truth = (support * (1 + 0.3 * torch.sin(5 * grid[0]) * torch.cos(4 * grid[2]))).float()
    measurement = measurement_for(shape, factors)
    low = measurement(truth)
    restored = measurement.restore(low)
    cut = restored.clamp(min=0) * support
    fitted = measurement.restore_inside(restored, support)
    assert fitted.min() >= 0 and not fitted[~support].any()
    assert (measurement(fitted) - low).abs().mean() < 0.2 * (measurement(cut) - low).abs().mean()
    assert (fitted - truth).square().mean() < 0.8 * (cut - truth).square().mean()
    fine = measurement_for(shape, (1, 1, 1))
    assert torch.equal(fine.restore_inside(truth, support), truth)

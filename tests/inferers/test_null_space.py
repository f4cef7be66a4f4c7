"""x - A+ A x: what a scan cannot see, exact for any axis and factor."""

from functools import reduce

import numpy as np
import pytest
import torch
from samplings import BOX, SHAPE, along, every_sampling, thick_everywhere

from monai_diffens.acquisition.measurement import PROFILES, AxisSampling, Measurement


@every_sampling
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("box", [None, BOX], ids=["whole", "box"])
def test_scan_cannot_see_a_projected_residual(factor, coverage, profile, axis, box):
    measurement = along(axis, factor, coverage, profile)
    region = BOX if box else (slice(None),) * 3
    residual = torch.zeros(1, 1, *SHAPE)
    residual[(..., *region)] = torch.randn(residual[(..., *region)].shape)
    project = measurement.null_space(box)
    projected = torch.zeros_like(residual)
    projected[(..., *region)] = project(residual[(..., *region)])
    assert measurement(residual).abs().max() > 0.1
    assert measurement(projected).abs().max() < 2e-6
    assert projected.std() > 0.3 * residual.std()  # the detail is left
    torch.testing.assert_close(
        project(projected[(..., *region)]), projected[(..., *region)], rtol=0, atol=5e-6
    )


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("box", [None, BOX], ids=["whole", "box"])
def test_projection_when_every_axis_is_thick(profile, box):
    measurement = thick_everywhere(profile=profile)
    region = BOX if box else (slice(None),) * 3
    residual = torch.randn(1, 1, *SHAPE)[(..., *region)]
    projected = torch.zeros(1, 1, *SHAPE)
    projected[(..., *region)] = measurement.null_space(box)(residual)
    assert measurement(projected).abs().max() < 2e-6


def test_projection_is_the_dense_pseudo_inverse_of_the_whole_operator():
    shape = (6, 5, 4)
    axes = [AxisSampling.from_factor(6, 2.5), AxisSampling.from_factor(5, 2, 3, "gaussian"), None]
    dense = reduce(np.kron, [axes[0].measure(), axes[1].measure(), np.eye(4)])
    residual = torch.randn(shape, dtype=torch.float64)
    flat = residual.flatten().numpy()
    expected = flat - np.linalg.pinv(dense) @ dense @ flat
    measurement = Measurement(axes)
    np.testing.assert_allclose(measurement(residual).flatten(), dense @ flat, atol=1e-12)
    np.testing.assert_allclose(measurement.null_space()(residual).flatten(), expected, atol=1e-12)


def test_projection_is_orthogonal():
    project = thick_everywhere().null_space()
    a, b = torch.randn(2, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close((project(a) * b).sum(), (a * project(b)).sum(), rtol=1e-9, atol=1e-9)


def test_consistent_output_is_scan_plus_any_projected_residual():
    """Contract 7: the output, thick-sliced again, is the input, whatever the network says."""
    measurement = along(2, 5, profile="gaussian")
    scan = measurement(torch.rand(1, 1, *SHAPE))
    output = measurement.restore(scan) + 0.07 * measurement.null_space()(torch.randn(1, 1, *SHAPE))
    torch.testing.assert_close(measurement(output), scan, rtol=0, atol=1e-5)

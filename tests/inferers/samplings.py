"""Measurements of every kind for the tests of consistency."""

import pytest

from monai_diffens.acquisition.measurement import PROFILES, AxisSampling, Measurement

FACTORS = (2, 2.5, 5, 6.3)
# slice thickness over slice spacing: gaps, contiguous, overlap
COVERAGES = (0.6, 1.0, 1.5)
SHAPE = (20, 21, 19)
BOX = (slice(3, 17), slice(0, 18), slice(4, 19))

every_sampling = pytest.mark.parametrize(
    ("factor", "coverage", "profile"),
    [(factor, coverage, profile) for factor in FACTORS for coverage in COVERAGES for profile in PROFILES],
)


def along(axis: int, factor: float, coverage: float = 1.0, profile: str = "box", shape=SHAPE) -> Measurement:
    """Measurement that is thick along one axis."""
    axes: list[AxisSampling | None] = [None, None, None]
    axes[axis] = AxisSampling.from_factor(shape[axis], factor, factor * coverage, profile)
    return Measurement(axes)


def thick_everywhere(factor: float = 2.5, profile: str = "box", shape=SHAPE) -> Measurement:
    """Measurement that is thick along all axes."""
    return Measurement([AxisSampling.from_factor(size, factor, profile=profile) for size in shape])

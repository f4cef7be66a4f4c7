"""Rigid registration: a motion that is known is found, and what must not be moved is not."""

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from monai_diffens.files import installed
from monai_diffens.transforms.registration import (
    LOWEST_AGREEMENT,
    RISE,
    RegistrationFailed,
    RigidMotion,
    Scan,
    WorkingGrid,
    align,
    euler_matrix,
    register_rigid,
    straight_grid,
)

SIDE = 96


def texture(seed: int) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(SIDE,) * 3), 4)
    return noise / noise.std()


def head(contrast: int = 0, anatomy: int = 0) -> Scan:
    """A brain of 42 mm radius with smooth structure, in one of two contrasts."""
    places = np.stack(np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij")) - (SIDE - 1) / 2
    radii = np.array([38, 42, 36])[:, None, None, None]
    brain = np.square(places / radii).sum(0) < 1
    tissue = texture(anatomy)
    shown = 3 + tissue if contrast == 0 else 3 - np.abs(tissue)
    affine = nib.affines.from_matvec(np.eye(3), [-SIDE / 2] * 3)
    return Scan((np.clip(shown, 0.2, None) * brain).astype(np.float32), affine)


def motion(degrees: float, mm: float) -> np.ndarray:
    turn = euler_matrix(*np.radians([degrees, 0, degrees]) / np.sqrt(2))
    return nib.affines.from_matvec(turn, [mm, 0, 0])


def moved(scan: Scan, by: np.ndarray) -> Scan:
    return Scan(scan.values, np.linalg.inv(by) @ scan.affine)


def error(found: np.ndarray, truth: np.ndarray, scan: Scan) -> float:
    points = nib.affines.apply_affine(scan.affine, np.argwhere(scan.values > 0)[::100])
    apart = nib.affines.apply_affine(found, points) - nib.affines.apply_affine(truth, points)
    return float(np.linalg.norm(apart, axis=1).mean())


# Loading elastix takes some ten seconds, once.
@pytest.fixture(scope="module")
def elastix():
    itk = pytest.importorskip("itk")
    if not installed("itk-elastix"):
        pytest.skip("needs the extra 'register'")
    return itk.ElastixRegistrationMethod


@pytest.mark.slow
def test_a_known_motion_is_found_and_told(elastix):
    fixed, by = head(), motion(5, 8)
    moving = moved(head(1), by)
    found = align(fixed, moving, fixed.values > 0)
    assert found.moved and not found.doubtful
    assert error(found.motion.matrix, np.linalg.inv(by), fixed) < 1.0
    assert found.after > found.before + RISE and found.after > LOWEST_AGREEMENT
    plain = found.plain()
    assert plain["Pose"] == "registered" and abs(plain["TurnDegrees"] - 5) < 0.7
    assert abs(plain["ShiftMillimetres"] - 8) < 1


@pytest.mark.slow
def test_the_finer_scan_samples_whichever_is_given_first(elastix):
    fixed, by = head(), motion(4, 5)
    fine = moved(head(1), by)
    coarse = Scan(fixed.values.reshape(SIDE, SIDE, -1, 4).mean(-1), fixed.affine @ slab(4))
    there, back = register_rigid(coarse, fine), register_rigid(fine, coarse)
    np.testing.assert_allclose(there @ back, np.eye(4), atol=1e-9)
    assert error(there, np.linalg.inv(by), fixed) < 1.2


def slab(factor: int) -> np.ndarray:
    step = np.diag([1.0, 1, factor, 1])
    step[2, 3] = (factor - 1) / 2
    return step


@pytest.mark.slow
def test_aligned_scans_keep_the_header_pose(elastix):
    found = align(head(), head(1), head().values > 0)
    assert not found.moved and found.motion.mm == 0 and found.motion.degrees == 0
    assert found.before == found.after > LOWEST_AGREEMENT


@pytest.mark.slow
def test_two_people_are_refused_with_the_numbers(elastix):
    with pytest.raises(RegistrationFailed) as refused:
        align(head(), head(1, anatomy=7), head().values > 0)
    assert refused.value.why in ("agreement", "implausible")
    assert refused.value.numbers["after"] < LOWEST_AGREEMENT and refused.value.numbers["before"] < 0.25


@pytest.mark.parametrize(("value", "why"), [(5.0, "constant"), (0.0, "constant"), (np.nan, "not_finite")])
def test_what_would_end_the_process_never_reaches_elastix(value, why):
    scan = Scan(np.full((SIDE,) * 3, value, dtype=np.float32), head().affine)
    for pair in ((head(), scan), (scan, head())):
        with pytest.raises(RegistrationFailed) as refused:
            register_rigid(*pair)
        assert refused.value.why == why


@pytest.mark.slow
def test_too_little_in_common_is_refused(elastix):
    fixed = head()
    far = Scan(head(1).values, head(1).affine + np.array([[0, 0, 0, 300.0]] + [[0] * 4] * 3))
    with pytest.raises(RegistrationFailed) as refused:
        align(fixed, Scan(far.values[:, :, :30], far.affine), fixed.values > 0)
    assert refused.value.why in ("overlap", "agreement", "implausible")


@pytest.mark.slow
def test_few_slices_and_sheared_axes_are_registered(elastix):
    fixed, by = head(), motion(3, 4)
    few = head(1)
    few = Scan(
        few.values[:, :, 24:72].reshape(SIDE, SIDE, -1, 12).mean(-1), few.affine @ start(24) @ slab(12)
    )
    assert min(few.values.shape) == 4
    assert error(register_rigid(fixed, moved(few, by)), np.linalg.inv(by), fixed) < 4
    shear = np.eye(4)
    shear[1, 2] = 0.2
    _, shape = straight_grid(head(1), 1.0)
    sheared = head(1).affine @ shear
    tilted = Scan(Scan(head(1).values, head(1).affine).on(sheared, shape), sheared)
    assert error(register_rigid(fixed, moved(tilted, by)), np.linalg.inv(by), fixed) < 1.5


def start(index: int) -> np.ndarray:
    return nib.affines.from_matvec(np.eye(3), [0, 0, index])


def test_agreement_does_not_mind_which_tissue_is_brighter():
    fixed = head()
    grid = WorkingGrid.of(fixed, fixed.values > 0)
    inverse = Scan(np.where(fixed.values > 0, 9 - fixed.values, 0), fixed.affine)
    same, overlap = grid.agreement_with(fixed, np.eye(4))
    assert abs(same - 2 / 3) < 0.01 and overlap == 1
    assert abs(grid.agreement_with(inverse, np.eye(4))[0] - same) < 0.1
    assert grid.agreement_with(head(0, anatomy=3), np.eye(4))[0] < 0.1
    shifted = [grid.agreement_with(moved(fixed, motion(0, mm)), np.eye(4))[0] for mm in (0, 1, 2, 4)]
    assert shifted == sorted(shifted, reverse=True)


def test_motion_is_told_at_the_centre():
    by = RigidMotion(motion(10, 15), np.zeros(3))
    assert abs(by.degrees - 10) < 0.1 and abs(by.mm - 15) < 1e-9

"""Lesions taken out and planted: the tissue around stays, the difference is the lesion's."""

import numpy as np
import pytest

from research.metrics.lesions import lesion_changes, lesion_difference, mirror

SHAPE = (40, 36, 32)


def ball(centre, radius) -> np.ndarray:
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    return np.square(grid - np.array(centre)).sum(-1) <= radius**2


@pytest.fixture
def brain() -> np.ndarray:
    """A brain of 0.5 with a bright lesion on the right, a faint one, and two that face each other."""
    return np.where(ball((20, 18, 16), 15), 0.5, 0.0)


def test_a_lesion_in_flat_tissue_is_removed_without_a_trace(brain):
    lesion = ball((28, 18, 16), 3)
    truth = brain + 0.3 * lesion
    difference = lesion_difference(truth, lesion, lesion, brain > 0)
    np.testing.assert_allclose(truth - difference, brain, atol=1e-6)
    assert difference[lesion].mean() == pytest.approx(0.3)


def test_changes_are_the_lesion_removed_and_planted_on_the_other_side(brain):
    lesion = ball((28, 18, 16), 3)
    truth = brain + 0.3 * lesion
    removed, planted = lesion_changes(truth, lesion, [(50, 500)], 1)
    assert (removed.kind, planted.kind) == ("removed", "planted")
    assert removed.volume == planted.volume == lesion.sum()
    np.testing.assert_allclose(removed.without, brain, atol=1e-6)
    np.testing.assert_array_equal(removed.mask, lesion)
    np.testing.assert_array_equal(planted.mask, ball((12, 18, 16), 3))
    np.testing.assert_array_equal(planted.without, truth)
    np.testing.assert_allclose((planted.without + planted.difference)[planted.mask], 0.8, atol=1e-6)


def test_faint_lesions_and_other_sizes_are_left_out(brain):
    label = ball((28, 18, 16), 3) | ball((12, 24, 16), 2)
    truth = brain + 0.02 * label
    assert list(lesion_changes(truth, label, [(1, 500)], 5)) == []
    truth = brain + 0.3 * label
    assert {change.volume for change in lesion_changes(truth, label, [(20, 60)], 5)} == {33}
    assert {change.volume for change in lesion_changes(truth, label, [(20, 500)], 1)} == {123}


def test_nothing_is_planted_where_there_is_a_lesion_or_no_brain(brain):
    label = ball((28, 18, 16), 3) | ball((12, 18, 16), 3)
    kinds = [change.kind for change in lesion_changes(brain + 0.3 * label, label, [(50, 500)], 5)]
    assert kinds == ["removed", "removed"]
    lopsided = brain.copy()
    lopsided[7:14] = 0
    lesion = ball((28, 18, 16), 3)
    kinds = [change.kind for change in lesion_changes(lopsided + 0.3 * lesion, lesion, [(50, 500)], 5)]
    assert kinds == ["removed"]


def test_mirror_is_about_the_brains_middle():
    brain = np.zeros((12, 2, 2), dtype=bool)
    brain[3:11] = True
    volume = np.zeros((12, 2, 2))
    volume[4], volume[0] = 1, 2  # 0 has no counterpart inside of the volume
    result = mirror(volume, brain)
    assert np.flatnonzero(result[:, 0, 0]).tolist() == [9] and result.max() == 1

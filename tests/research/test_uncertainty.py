"""Spread against error: figures with known answers."""

import numpy as np
import pytest

from research.metrics.uncertainty import FRACTIONS, fitted_floor, sparsification, spread_metrics


@pytest.fixture
def normal() -> tuple[np.ndarray, np.ndarray]:
    """Errors drawn with the spread that is told."""
    generator = np.random.default_rng(0)
    spread = generator.uniform(0.01, 0.2, 50_000)
    return spread * generator.standard_normal(50_000), spread


def test_a_true_spread_covers_as_a_normal_distribution_does(normal):
    figures = spread_metrics(*normal)
    for k, share in ((1, 0.683), (2, 0.954), (3, 0.997)):
        assert figures[f"within_{k}"] == pytest.approx(share, abs=0.005)
    assert 0.3 < figures["correlation"] < 0.8
    assert 0 < figures["ause"] < 0.6 * figures["ause_random"]


def test_an_over_confident_spread_is_told_and_mended_by_its_floor(normal):
    error, spread = normal
    raw = spread_metrics(error, spread / 4)
    assert raw["within_1"] < 0.25
    floor = fitted_floor(error, spread / 4, spread)
    assert floor == pytest.approx(np.sqrt(1 - 1 / 16), rel=0.02)  # what is missing of the variance
    mended = spread_metrics(error, np.hypot(spread / 4, floor * spread))
    assert mended["within_1"] == pytest.approx(0.683, abs=0.001)
    assert mended["within_2"] == pytest.approx(0.954, abs=0.005)


def test_a_spread_that_covers_needs_no_floor(normal):
    error, spread = normal
    assert fitted_floor(error, 1.1 * spread, np.ones_like(spread)) == 0


def test_spread_that_is_the_error_and_spread_that_knows_nothing(normal):
    error, _ = normal
    perfect = spread_metrics(error, np.abs(error) + 1e-9)
    assert perfect["ause"] == pytest.approx(0, abs=1e-6) and perfect["correlation"] == pytest.approx(1)
    unrelated = spread_metrics(error, np.random.default_rng(1).uniform(0.1, 0.2, error.size))
    assert unrelated["ause"] == pytest.approx(unrelated["ause_random"], rel=0.03)
    assert unrelated["correlation"] == pytest.approx(0, abs=0.02)
    assert spread_metrics(error, np.full(error.shape, 0.1))["correlation"] == 0


def test_sparsification_by_hand():
    curve = sparsification(np.arange(1.0, 21), np.arange(20.0))
    assert curve[0] == 1 and len(curve) == len(FRACTIONS)
    whole = np.sqrt(np.mean(np.square(np.arange(1.0, 21))))
    assert curve[-1] == pytest.approx(1 / whole) and curve[10] == pytest.approx(np.sqrt(38.5) / whole)
    assert (sparsification(np.zeros(5), np.ones(5)) == 0).all()


def test_bad_shapes():
    for error, spread in (
        (np.ones(3), np.ones(4)),
        (np.ones((2, 2)), np.ones((2, 2))),
        (np.ones(1), np.ones(1)),
    ):
        with pytest.raises(ValueError, match="two or more values are needed"):
            spread_metrics(error, spread)

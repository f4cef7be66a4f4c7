"""How well a spread tells the error: coverage, correlation and sparsification."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

ONE_SIGMA = 0.6827  # share of a normal distribution within one standard deviation
FRACTIONS = np.linspace(0, 0.95, 20)
SMALLEST = 1e-6  # of a spread, on volumes whose range is 1


def spread_metrics(error: NDArray[np.floating], spread: NDArray[np.floating]) -> dict[str, float]:
    """Figures of a spread against the error it should foretell.

    Args:
        error: (N,) truth minus mean of the samples.
        spread: (N,) what is told of its size, in the error's unit.

    Returns:
        ``within_1`` to ``within_3``: share of the errors within k spreads (normal: 0.683, 0.954, 0.997);
        ``correlation``: Spearman's, of spread and absolute error; ``ause``: area between the sparsification
        curves of spread and error (0 is best), ``ause_random`` that of a random order; ``rmse`` and
        ``mean_spread``.

    Raises:
        ValueError: shapes differ, or there are fewer than two values.
    """
    size, sigma = np.abs(np.asarray(error, dtype=np.float64)), np.asarray(spread, dtype=np.float64)
    if size.shape != sigma.shape or size.ndim != 1 or size.size < 2:
        raise ValueError(
            f"two (N,) arrays of two or more values are needed, got {size.shape} and {sigma.shape}"
        )
    ratio = size / np.maximum(sigma, SMALLEST)
    figures = {f"within_{k}": float((ratio <= k).mean()) for k in (1, 2, 3)}
    best, told = sparsification(size, size), sparsification(size, sigma)
    return figures | {
        "correlation": float(spearmanr(sigma, size).statistic) if np.ptp(sigma) > 0 < np.ptp(size) else 0.0,
        "ause": float(np.mean(told - best)),
        "ause_random": float(np.mean(1 - best)),
        "rmse": float(np.sqrt(np.mean(size**2))),
        "mean_spread": float(sigma.mean()),
    }


def fitted_floor(
    error: NDArray[np.floating], spread: NDArray[np.floating], detail: NDArray[np.floating]
) -> float:
    """Factor with which sqrt(spread^2 + (factor * detail)^2) covers 68.3 % of the errors.

    Args:
        error: (N,) truth minus mean of the samples.
        spread: (N,) standard deviation of the samples.
        detail: (N,) of :func:`~monai_diffens.transforms.describe.unseen_detail`.

    Returns:
        The factor; 0 where the spread alone covers as many or more.
    """
    missing = np.square(error, dtype=np.float64) - np.square(spread, dtype=np.float64)
    squared = missing / np.square(np.maximum(detail, SMALLEST), dtype=np.float64)
    return float(np.sqrt(max(0.0, np.quantile(squared, ONE_SIGMA))))


def sparsification(error: NDArray[np.floating], order: NDArray[np.floating]) -> NDArray[np.floating]:
    """RMSE of what is left without the fractions 0 to 0.95 of highest ``order``, over that of the whole.

    Source: Ilg et al., ECCV 2018 (arXiv:1802.07095).
    """
    kept = np.cumsum(np.square(error[np.argsort(order, kind="stable")]))  # lowest first
    counts = np.maximum(1, np.round((1 - FRACTIONS) * error.size).astype(int))
    whole = kept[-1] / error.size
    return np.sqrt(kept[counts - 1] / counts / whole) if whole > 0 else np.zeros(len(counts))

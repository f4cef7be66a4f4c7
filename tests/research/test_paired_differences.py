"""Differences case by case: the figures are scipy's, and only what can be paired is paired."""

import pytest
from scipy import stats

from research.studies.sweep import KEYS
from research.tables.paired_differences import paired_differences

CALIBRATED, MEAN = (30.0, 28.0, 27.0), (29.5, 27.8, 27.1)


def row(case: str, method: str, psnr: float, gain: str = "1") -> dict[str, str]:
    key = dict(zip(KEYS, ("x4", case, method, "1", "", gain), strict=True))
    return key | {"psnr_brain": str(psnr), "ssim_brain": str(psnr / 40)}


def rows(gain: str = "1") -> list[dict[str, str]]:
    pairs = zip(("a", "b", "c"), CALIBRATED, MEAN, strict=True)
    return [
        each
        for case, ours, theirs in pairs
        for each in (row(case, "calibrated", ours, gain), row(case, "mean", theirs, gain))
    ]


def test_differences_are_paired_by_case():
    text = "\n".join(paired_differences(rows()))
    p = stats.ttest_rel(CALIBRATED, MEAN).pvalue
    assert f"| x4 | mean | 1 | - | 1 | 3 | +0.200 (-0.100 to +0.500), p {p:.2g} |" in text


def test_points_of_the_dial_are_kept_apart():
    lines = [line for line in paired_differences(rows() + rows("2")) if line.startswith("| x4")]
    assert [line.split(" | ")[4] for line in lines] == ["1", "2"]


@pytest.mark.parametrize(
    "unpaired",
    [
        [],
        [row("a", "calibrated", 30.0), row("b", "mean", 29.0)],  # no case has both
        [row("a", "calibrated", 30.0), row("a", "mean", 29.0)],  # one case alone has no spread
        [row("a", "cubic", 30.0), row("b", "cubic", 29.0)],
    ],
)
def test_nothing_is_said_without_pairs(unpaired):
    assert paired_differences(unpaired) == []

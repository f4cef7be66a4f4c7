"""The figures at the top of a page, each with what it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Scale(NamedTuple):
    """What is 1 in a model's scaling."""

    short: str  # as figures name it
    long: str  # what it is


SCALES = {
    "range": Scale("the range", "the scan's range, the 99.5th percentile of its foreground"),
    "median": Scale("the brain's median", "the median of the brain"),
}


class Figure(NamedTuple):
    """A figure."""

    name: str  # what it is
    value: str  # with its unit
    meaning: str  # how to read it


def figures(
    facts: Mapping[str, Any],
    before: str,
    after: str,
    seconds: float | None,
    scale: Scale,
    unit: float = 1.0,
) -> list[Figure]:
    """What matters of a result, in the order of the page.

    Args:
        facts: of :class:`~monai_diffens.transforms.describe.DescribeResultd`.
        before: voxels of the scan, as :func:`spacing_text` tells them.
        after: voxels of the result.
        seconds: time that the case took, if it is known.
        scale: what percentages are of.
        unit: what 1 is in the input's units, to give the spread in them too; 1 to leave that out.
    """
    found = []
    if agreement := facts.get("Consistency"):
        mean, most = agreement["MeanAbsoluteDifference"], agreement["MaximumAbsoluteDifference"]
        found.append(
            Figure(
                "Agreement with the scan",
                percent(mean),
                f"Mean difference of the result, sliced thick again, from the scan; at most {percent(most)}. "
                f"Of {scale.short}. It says nothing about what lies between the slices.",
            )
        )
    else:
        found.append(
            Figure(
                "Agreement with the scan",
                "not measured",
                "Nothing of this contrast was measured, or it has no thick slices.",
            )
        )
    found.append(
        Figure(
            "Voxels", f"{before} \N{RIGHTWARDS ARROW} {after}" if before else after, "Before and after, mm."
        )
    )
    sampling = facts.get("Sampling", {})
    if "num_steps" in sampling:
        steps, samples = sampling["num_steps"], sampling.get("num_samples", 1)
        value = f"{steps} step" if steps == 1 else f"{steps} steps"
        value += f", {samples} samples" if samples != 1 else ""
        meaning = "Passes of the networks. One has the lowest error; more give texture closer to a scan's."
        if samples != 1:
            meaning += " The result is the mean of the samples."
        found.append(Figure("Sampling", value, meaning))
    if seconds is not None:
        found.append(Figure("Time", duration(seconds), "From reading the scan to writing this page."))
    if spread := facts.get("Spread"):
        mean, most = spread["Mean"], spread["Percentile95"]
        text = "How far off a voxel may be (one standard deviation), on average; "
        text += f"below {percent(most)} in 95 % of them. Of {scale.short}"
        if unit != 1:
            text += f": {mean * unit:.4g} and {most * unit:.4g} in the input's units"
        found.append(Figure("Spread", percent(mean), text + "."))
    else:
        found.append(Figure("Spread", "not measured", "Ask for it with --num_samples 8."))
    if weights := facts.get("PlaneWeights"):
        value = ", ".join(f"{name}\N{NO-BREAK SPACE}{share:.2f}" for name, share in by_plane(weights).items())
        meaning = "How much the models of each plane decided, over the whole result."
        found.append(Figure("Mean fusion weights", value, meaning))
    return found


def by_plane(weights: Mapping[str, float]) -> dict[str, float]:
    """Weights of experts, "axial" or "axial-T1w", summed over each plane's."""
    planes: dict[str, float] = {}
    for name, share in weights.items():
        plane = name.split("-")[0]
        planes[plane] = planes.get(plane, 0.0) + share
    return planes


def spacing_text(spacing: Sequence[float]) -> str:
    """Voxel size in mm, right, front, head: "1 x 1 x 5"."""
    return "\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}\N{NO-BREAK SPACE}".join(
        format(size, ".3g") for size in spacing
    )


def percent(share: float) -> str:
    """A share in per cent, with three digits: 0.0123 %, 1.23 %, 12.3 %."""
    return f"{share * 100:.3g} %" if abs(share) >= 1e-6 else "0 %"


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"

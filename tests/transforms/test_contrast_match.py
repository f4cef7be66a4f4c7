"""Contrasts of one case: on one grid, of one head, and under their own names."""

import pytest
import torch

from monai_diffens.transforms.conditions import WarnSwappedd

KEYS = ("T1w", "ce-gadolinium_T1w", "T2w", "FLAIR")


def tails(low: float, high: float) -> torch.Tensor:
    """A volume of median 1 with a tenth of its voxels at each of two values."""
    return torch.tensor([low] * 100 + [1.0] * 800 + [high] * 100).reshape(1, 10, 10, 10)


USUAL = {"T1w": (0.2, 1.4), "ce-gadolinium_T1w": (0.2, 2.0), "T2w": (0.4, 3.0), "FLAIR": (0.2, 2.0)}


def warned(**swapped: str) -> list[str]:
    names = {key: swapped.get(key.split("-")[0], key) for key in KEYS}
    return WarnSwappedd(KEYS)({key: tails(*USUAL[names[key]]) for key in KEYS}).get("warnings", [])


def test_usual_contrasts_are_not_warned_of():
    assert warned() == []
    assert WarnSwappedd(KEYS)({"T2w": tails(0.2, 1.1)}).get("warnings") is None  # nothing to compare with


@pytest.mark.parametrize(
    ("swapped", "line"),
    [
        ({"T1w": "T2w", "T2w": "T1w"}, "T1w looks like T2w"),
        ({"FLAIR": "T2w", "T2w": "FLAIR"}, "FLAIR looks like T2w"),
        ({"T1w": "ce-gadolinium_T1w", "ce": "T1w"}, "T1w has brighter voxels than ce-gadolinium_T1w"),
    ],
)
def test_swapped_contrasts_are_named(swapped, line):
    assert any(
        each.startswith(line) and each.endswith("are their names swapped?") for each in warned(**swapped)
    )

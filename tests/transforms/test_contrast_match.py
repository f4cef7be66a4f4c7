"""Contrasts of one case: on one grid, of one head, and under their own names."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_diffens.transforms.contrast_match import MatchContrastsd, WarnSwappedd
from monai_diffens.transforms.input_gate import InputRejected
from monai_diffens.transforms.intensity import SCALE_KEY
from monai_diffens.transforms.thick_slices import SAMPLING_KEY

KEYS = ("T1w", "ce-gadolinium_T1w", "T2w", "FLAIR")


def head(shift: float = 0.0, spacing: float = 1.0, size: int = 24) -> MetaTensor:
    """A smooth ball of 8 mm radius at the origin of the patient's axes, moved ``shift`` mm to the right."""
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -spacing * (size - 1) / 2
    x, y, z = torch.meshgrid(*(affine[i, 3] + spacing * torch.arange(size) for i in range(3)), indexing="ij")
    inside = (1 - ((x - shift) ** 2 + y**2 + z**2) / 64).clamp(min=0)[None].float()
    return MetaTensor(inside, affine=torch.as_tensor(affine))


def test_one_grid_passes_untouched():
    data = {"T1w": head(), "T2w": head(1.0), "case": "a"}
    matched = MatchContrastsd(KEYS)(data)
    assert all(torch.equal(matched[key], data[key]) for key in ("T1w", "T2w")) and "warnings" not in matched


def test_another_grid_is_resampled_to_the_first_and_told():
    other, first = head(spacing=1.5, size=16), head()
    other.meta[SCALE_KEY], first.meta[SCALE_KEY] = 7.0, 3.0
    matched = MatchContrastsd(KEYS)({"T2w": first, "FLAIR": other, "case": "a"})
    assert matched["FLAIR"].shape == head().shape
    np.testing.assert_allclose(matched["FLAIR"].affine, head().affine)
    assert (matched["FLAIR"].as_tensor() - head().as_tensor()).abs().max() < 0.1
    assert matched["FLAIR"].meta[SCALE_KEY] == 7.0
    assert matched["warnings"] == ["FLAIR lies on another grid: resampled to that of T2w"]


def test_a_thick_sliced_scan_of_the_target_gives_the_grid():
    """Its slices stay whole rows of the grid, so that the result can agree with them."""
    thick, fine = head(spacing=1.5, size=16), head()
    thick.meta |= {SAMPLING_KEY: np.zeros((3, 4)), SCALE_KEY: 7.0}
    fine.meta[SCALE_KEY] = 3.0
    matched = MatchContrastsd(KEYS)({"T2w": fine, "FLAIR": thick, "case": "a"})
    assert matched["FLAIR"] is thick and matched["T2w"].shape == thick.shape
    np.testing.assert_allclose(matched["T2w"].affine, thick.affine)
    assert SAMPLING_KEY not in matched["T2w"].meta and matched["T2w"].meta[SCALE_KEY] == 3.0
    assert matched["warnings"] == ["T2w lies on another grid: resampled to that of FLAIR"]


def test_brains_that_do_not_overlap_are_rejected():
    with pytest.raises(InputRejected, match="a: T1w and FLAIR share .* of the smaller one; they are not of"):
        MatchContrastsd(KEYS)({"T1w": head(-3), "FLAIR": head(6), "case": "a"})


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

"""Contrasts of one case on one grid: of one head, interpolated once, moved only where that helps."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_diffens.files import installed
from monai_diffens.messages import InputRejected, say
from monai_diffens.transforms import one_grid, registration
from monai_diffens.transforms.intensity import SCALE_KEY
from monai_diffens.transforms.one_grid import MOVES_KEY, OneGridd
from monai_diffens.transforms.target_grid import like
from monai_diffens.transforms.thick_slices import SAMPLING_KEY

KEYS = ("T1w", "ce-gadolinium_T1w", "T2w", "FLAIR")


def head(shift: float = 0.0, spacing=(1.0, 1.0, 1.0), side: float = 24, radius: float = 8) -> MetaTensor:
    """A smooth ball at the origin of the patient's axes, moved ``shift`` mm to the right."""
    shape = [round(side / step) for step in spacing]
    affine = nib.affines.from_matvec(
        np.diag(spacing), [-s * (n - 1) / 2 for s, n in zip(spacing, shape, strict=True)]
    )
    x, y, z = torch.meshgrid(
        *(affine[i, 3] + spacing[i] * torch.arange(n) for i, n in enumerate(shape)), indexing="ij"
    )
    inside = (1 - ((x - shift) ** 2 + y**2 + z**2) / radius**2).clamp(min=0)[None].float()
    volume = MetaTensor(inside, affine=torch.as_tensor(affine))
    volume.meta[SCALE_KEY] = float(spacing[0])
    return volume


def test_one_grid_passes_untouched():
    data = {"T1w": head(), "T2w": head(1.0), "case": "a"}
    made = OneGridd(KEYS)(data)
    for key in ("T1w", "T2w"):
        np.testing.assert_allclose(made[key].as_tensor(), data[key].as_tensor(), atol=2e-3)
        assert ((made[key] > 0) == (data[key] > 0)).all()
    assert "warnings" not in made


def test_another_grid_is_interpolated_to_the_thinnest_and_told():
    coarse = head(spacing=(2.0, 2.0, 2.0))
    made = OneGridd(KEYS)({"T1w": coarse, "T2w": head(), "case": "a"})
    np.testing.assert_allclose(made["T1w"].affine, head().affine)
    assert (made["T1w"] - head()).abs().max() < 0.12
    assert made["T1w"].meta[SCALE_KEY] == 2.0 and SAMPLING_KEY not in made["T1w"].meta
    assert made["warnings"] == [say("resampled", contrast="T1w", first="T2w")]


def test_the_scan_of_the_target_gives_the_grid_and_keeps_its_slices():
    thick = head(spacing=(1.0, 1.0, 4.0))
    made = OneGridd(KEYS, scan_key="scan")(
        {"T2w": head(spacing=(1.5, 1.5, 1.5)), "FLAIR": thick, "case": "a"}
    )
    assert made["FLAIR"].shape[1:] == made["T2w"].shape[1:] == (24, 24, 24)
    np.testing.assert_allclose(made["FLAIR"].affine, head().affine, atol=1e-6)
    np.testing.assert_allclose(made["T2w"].affine, head().affine, atol=1e-6)
    assert torch.equal(made["scan"].as_tensor(), thick.as_tensor()) and SAMPLING_KEY in made["FLAIR"].meta


def test_a_thick_scan_beyond_its_brain_is_zero():
    """Fault 18: the spline of thick slices swings above 0 around the brain, far outside of it."""
    ball = head(radius=10, side=40, spacing=(1.0, 1.0, 5.0))
    hard = MetaTensor((ball.as_tensor() > 0.3).float(), affine=ball.affine)
    made = OneGridd(KEYS)({"T1w": hard, "T2w": hard.clone(), "case": "a"})
    held = torch.from_numpy(np.kron(hard[0].numpy() > 0, np.ones((1, 1, 5), dtype=bool)))
    for key in ("T1w", "T2w"):
        shown = made[key][0] > 0
        assert not (shown & ~held).any() and (shown & held).sum() > 0.8 * held.sum()


def test_one_interpolation_loses_less_than_two():
    fine = waves((1.0, 1.0, 1.0))
    slices = waves((1.0, 1.0, 3.0))
    grid = OneGridd(KEYS, register="never")
    shifted = fine.clone()
    shifted.affine = torch.as_tensor(nib.affines.from_matvec(np.eye(3), [0.4, 0.3, 0.2])) @ fine.affine
    truth = waves((1.0, 1.0, 1.0), shift=(0.4, 0.3, 0.2))
    carried = grid.carry(slices, shifted, np.eye(4))
    middle = (slice(None), *[slice(6, -6)] * 3)
    once = float((carried - truth)[middle].abs().mean())
    twice = like(grid.target.restore(slices)[0], shifted)
    assert once < 0.5 * float((twice - truth)[middle].abs().mean())


def waves(spacing, shift=(0.0, 0.0, 0.0), side: int = 48) -> MetaTensor:
    """Smooth waves, averaged over each voxel."""
    shape = [round(side / step) for step in spacing]
    volume = torch.ones(1, *shape)
    for axis, (step, count) in enumerate(zip(spacing, shape, strict=True)):
        frequency = 2 * np.pi / 12
        place = (torch.arange(count) - (count - 1) / 2) * step + shift[axis]
        wave = 2 + torch.cos(frequency * place) * np.sinc(frequency * step / 2 / np.pi)
        volume = volume * wave.reshape([-1 if axis == other else 1 for other in (-1, 0, 1, 2)])
    origin = [-s * (n - 1) / 2 for s, n in zip(spacing, shape, strict=True)]
    return MetaTensor(
        volume.float(), affine=torch.as_tensor(nib.affines.from_matvec(np.diag(spacing), origin))
    )


def test_brains_that_do_not_overlap_are_rejected():
    with pytest.raises(InputRejected) as refused:
        OneGridd(KEYS)({"T1w": head(-3), "FLAIR": head(6), "case": "a"})
    assert "not of one head" in str(refused.value)


def big(contrast: int, shift: float = 0.0) -> MetaTensor:
    """A brain of 400 cm3 with structure, shifted to the right in the patient's axes."""
    from test_registration import head as brain

    scan = brain(contrast)
    affine = scan.affine.copy()
    affine[0, 3] += shift
    return MetaTensor(torch.from_numpy(scan.values)[None], affine=torch.as_tensor(affine))


@pytest.mark.slow
def test_a_moved_contrast_is_brought_back_and_told():
    if not installed("itk-elastix"):
        pytest.skip("needs the extra 'register'")
    smallest = one_grid.SMALLEST_BRAIN
    still, gone = big(0), big(1, 6.0)
    assert float((still > 0).sum()) / 1000 > smallest
    made = OneGridd(KEYS)({"FLAIR": still, "T1w": gone, "case": "a"})
    told = made[MOVES_KEY]["T1w"]
    assert told["Pose"] == "registered" and abs(told["ShiftMillimetres"] - 6) < 0.8
    assert told["TurnDegrees"] < 1 and told["AgreementAfter"] > told["AgreementBefore"]
    never = OneGridd(KEYS, register="never")({"FLAIR": still, "T1w": big(1, 6.0), "case": "a"})
    assert MOVES_KEY not in never
    aligned = big(1)
    apart = [float((done["T1w"] - aligned).abs()[aligned > 0].mean()) for done in (made, never)]
    assert apart[0] < 0.25 * apart[1]


def test_another_person_is_refused_with_the_numbers(monkeypatch):
    def fails(*_, **__):
        raise registration.RegistrationFailed("agreement", mm=3.0, degrees=2.0, before=0.1, after=0.21)

    monkeypatch.setattr(one_grid, "align", fails)
    monkeypatch.setattr(one_grid, "installed", lambda _: True)
    with pytest.raises(InputRejected) as refused:
        OneGridd(KEYS)({"FLAIR": big(0), "T1w": big(1), "case": "a"})
    seen = {"mm": 3.0, "degrees": 2.0, "before": 0.1, "after": 0.21}
    line = say("not_registered_agreement", name="a", contrast="T1w", first="FLAIR", **seen)
    assert str(refused.value) == line


def test_without_the_extra_one_line_tells_what_to_install(monkeypatch):
    monkeypatch.setattr(one_grid, "installed", lambda _: False)
    monkeypatch.setattr(registration, "installed", lambda _: False)
    quiet = OneGridd(KEYS)({"FLAIR": big(0), "T1w": big(1), "case": "a"})
    assert quiet[MOVES_KEY]["T1w"]["Pose"] == "header" and "warnings" not in quiet
    told = OneGridd(KEYS)({"FLAIR": big(0), "T1w": big(1, 8.0), "case": "a"})
    assert any("monai-diffens[register]" in line for line in told["warnings"])
    with pytest.raises(InputRejected) as refused:
        OneGridd(KEYS, register="always")({"FLAIR": big(0), "T1w": big(1), "case": "a"})
    assert str(refused.value) == say("no_elastix", name="a", contrast="T1w", first="FLAIR")

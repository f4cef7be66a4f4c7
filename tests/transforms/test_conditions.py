"""Conditions: chosen at random for training, varied, masked to the brain and stacked in one fixed order."""

import pytest
import torch
from monai.data import MetaTensor

from monai_diffens.target import ResidualTarget
from monai_diffens.transforms.conditions import (
    LOWEST_IN_BRAIN,
    OUTPUT_MEDIAN,
    RandPowerd,
    StackConditionsd,
)
from monai_diffens.transforms.intensity import SCALE_KEY
from monai_diffens.transforms.thick_slices import SAMPLING_KEY, measurement_from_meta, thick_slice

KEYS = ("T1w", "T2w", "FLAIR")
SIZE = (12, 12, 12)


def ball(radius: float = 0.8) -> torch.Tensor:
    grid = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SIZE), indexing="ij")
    return (sum(axis**2 for axis in grid) < radius**2)[None]


def volume(seed: int = 0) -> MetaTensor:
    values = 0.5 + torch.rand((1, *SIZE), generator=torch.Generator().manual_seed(seed))
    return MetaTensor(values * ball(), meta={"filename_or_obj": f"{seed}.nii", SCALE_KEY: 100.0 + seed})


def test_powers_keep_the_median_and_differ():
    vary = RandPowerd(KEYS, exponents=(0.5, 2.0), prob=1.0).set_random_state(seed=0)
    image = torch.tensor([[0.0, 0.25, 1.0, 4.0]])
    varied = vary({"T1w": image, "T2w": image})
    for key in ("T1w", "T2w"):
        assert varied[key][0, [0, 2]].tolist() == [0, 1]
        exponent = float(varied[key][0, 3].log() / image[0, 3].log())
        assert 0.5 <= exponent <= 2 and float(varied[key][0, 1]) == pytest.approx(0.25**exponent, rel=1e-4)
    assert not torch.equal(varied["T1w"], varied["T2w"])
    assert RandPowerd(KEYS, prob=0.0)({"T1w": image})["T1w"] is image


@pytest.mark.parametrize("order", [("T1w", "T2w"), ("T2w", "T1w")])
def test_channels_follow_the_network_whatever_the_order_of_a_case(order):
    contrasts = {"T1w": volume(1), "T2w": volume(2)}
    stack = StackConditionsd(KEYS)({key: contrasts[key] for key in order})["image"]
    assert stack.shape == (3, *SIZE) and stack.dtype == torch.float32
    assert torch.equal(stack[0], contrasts["T1w"][0]) and torch.equal(stack[1], contrasts["T2w"][0])
    assert not stack[2].any()


def test_a_thick_sliced_scan_is_cut_to_the_brain_and_its_sampling_recorded():
    thick = thick_slice(volume(3), (4, 1, 1))
    assert (thick.as_tensor()[~ball()] != 0).any()  # its spline reaches outside
    data = StackConditionsd(KEYS)({"FLAIR": thick, "T1w": volume(1)})
    stack = data["image"]
    assert set(data) == {"image"}
    assert torch.equal(ResidualTarget("brain").base_of(stack[None])[0].bool(), ball())
    inside = ball()[0]
    assert stack[2][inside].min() >= LOWEST_IN_BRAIN
    measurement = measurement_from_meta(SIZE, thick.meta)
    seen = measurement(thick.as_tensor())
    cut = thick.as_tensor().clamp(min=LOWEST_IN_BRAIN) * ball()
    lost, kept = ((measurement(v) - seen).abs().mean() for v in (cut, stack[2:3].as_tensor()))
    assert kept < 0.1 * lost
    assert torch.equal(torch.as_tensor(stack.meta[SAMPLING_KEY]), torch.as_tensor(thick.meta[SAMPLING_KEY]))
    assert stack.meta[SCALE_KEY] == 103.0  # a result is in the units of the scan of its contrast
    assert stack.meta["filename_or_obj"] == "1.nii"


def test_without_a_scan_of_its_contrast_a_result_has_units_of_its_own():
    stack = StackConditionsd(KEYS)({"T1w": volume(1)})["image"]
    assert stack.meta[SCALE_KEY] == OUTPUT_MEDIAN and SAMPLING_KEY not in stack.meta


def test_training_masks_by_the_truth():
    wide = MetaTensor(torch.ones(1, *SIZE))
    stack = StackConditionsd(KEYS, brain_key="label")({"T2w": wide, "label": volume(3)})["image"]
    assert torch.equal(stack[[KEYS.index("T2w")]].as_tensor().bool(), ball())
    assert int(stack.flatten(1).any(dim=1).sum()) == 1


def test_a_thick_sliced_scan_alone_tells_the_brain_with_its_dark_ventricles():
    truth = ball(0.85).float()
    truth[:, 5:7, 5:7, 5:7] = 0.1
    thick = thick_slice(MetaTensor(truth), (1, 1, 2))
    found = ResidualTarget("brain").base_of(StackConditionsd(KEYS)({"FLAIR": thick})["image"][None])[0].bool()
    assert found[:, 5:7, 5:7, 5:7].all()
    assert (found != (truth > 0)).float().mean() < 0.05


def test_nothing_to_stack():
    with pytest.raises(ValueError, match="a case needs one of T1w, T2w, FLAIR"):
        StackConditionsd(KEYS)({"case": "x"})


def test_bases():
    conditions = torch.tensor([[[0.0, 2.0, 0.0]], [[0.5, 0.0, 0.0]]])[None].reshape(1, 2, 3)
    assert ResidualTarget().base_of(conditions).tolist() == [[[0.0, 2.0, 0.0]]]
    assert ResidualTarget("brain").base_of(conditions).tolist() == [[[1.0, 1.0, 0.0]]]
    with pytest.raises(ValueError, match="unknown base 'mean': use one of condition, brain"):
        ResidualTarget("mean")

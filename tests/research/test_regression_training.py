"""What a training iteration of the regression baseline gets."""

import pytest
import torch

from research.baselines.regression import RegressionPrepareBatch

STDS = (1.0, 1.0, 0.4)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Six crops: three with all conditions, three without the second; the last is empty."""
    image = 0.5 + torch.rand(6, 3, 4, 4, 4)
    image[:, :, 0] = 0
    image[3:, 1] = 0
    image[5] = 0
    return {"image": image, "label": (image[:, :1] + 0.2) * (image[:, :1] > 0)}


def test_subsets_target_and_variance(batch):
    prepare = RegressionPrepareBatch(STDS, held_out=[[0, 2]])
    seen = set()
    for _ in range(60):
        conditions, (residual, variance), arguments, options = prepare(batch)
        assert not arguments and not options and conditions.shape == batch["image"].shape
        kept = conditions.flatten(2).any(dim=2)
        for case in range(5):
            seen.add((case > 2, *kept[case].tolist()))
            assert kept[case].any()
            assert torch.equal(conditions[case, kept[case]], batch["image"][case, kept[case]])
            assert variance[case] == pytest.approx(0.16 if kept[case, 2] else 1.0)
        brain = (conditions > 0).any(dim=1, keepdim=True)
        assert torch.allclose(0.3 * residual + brain, batch["label"], atol=1e-6)
    whole = {subset[1:] for subset in seen if not subset[0]}
    assert len(whole) == 6 and (True, False, True) not in whole  # all seven but the one held out
    assert {subset[1:] for subset in seen if subset[0]} == {(True, False, False), (False, False, True)}


def test_of_one_condition_the_residual_is_to_it(batch):
    one = {"image": batch["image"][:, :1], "label": batch["label"]}
    prepare = RegressionPrepareBatch([1.0], residual_scale=0.07, base="condition")
    conditions, (residual, variance), *_ = prepare(one)
    assert torch.equal(conditions, one["image"]) and variance.tolist() == [1.0] * 6
    assert torch.allclose(0.07 * residual + conditions, one["label"], atol=1e-6)

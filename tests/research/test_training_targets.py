"""Translations without a network, on volumes whose right answer is known."""

import torch

from research.baselines.training_targets import BOX, TrainingTargets, along, bounding_box, quantiles_of


def targets(volumes: list[torch.Tensor]) -> TrainingTargets:
    items = [{"FLAIR": volume} for volume in volumes]
    return TrainingTargets(items, lambda item: {"FLAIR": item["FLAIR"][None]})


def test_an_increasing_change_of_values_is_undone():
    flair = torch.rand(20, 22, 24) + 0.5
    flair[:3] = 0
    other = torch.where(flair > 0, flair**3 * 7, 0)
    made = targets([flair]).matched({"T1w": other[None].neg().clamp(min=0), "T2w": other[None]})
    torch.testing.assert_close(made[0], flair, atol=0.02, rtol=0)


def test_quantiles_and_the_line_through_them():
    values = torch.linspace(2, 4, 1001)
    before = quantiles_of(values)
    assert before[0] == 2 and before[-1] == 4 and (before.diff() > 0).all()
    torch.testing.assert_close(along(values, before, before * 10), values * 10)
    torch.testing.assert_close(along(torch.tensor([0.0, 9.0]), before, before), torch.tensor([2.0, 4.0]))


def test_the_mean_is_stretched_to_the_brain():
    small, large = torch.zeros(40, 40, 40), torch.zeros(60, 50, 70)
    small[5:25, 5:30, 5:25] = 1
    large[10:50, 10:40, 10:60] = 3
    summary = targets([small, large]).summary
    assert summary.mean.shape == BOX
    torch.testing.assert_close(summary.mean, torch.full(BOX, 2.0))
    brain = torch.zeros(30, 30, 30)
    brain[4:20, 6:25, 8:28] = 5
    brain[10, 10, 10] = 0
    made = targets([small, large]).template({"T1w": brain[None]})
    assert bounding_box(made[0] > 0) == (slice(4, 20), slice(6, 25), slice(8, 28))
    assert made[0, 10, 10, 10] == 0
    torch.testing.assert_close(made[made > 0], torch.full_like(made[made > 0], 2.0))

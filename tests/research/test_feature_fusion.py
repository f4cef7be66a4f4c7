"""Training with decoder maps sees what sampling sees, whatever conditions each sample of a batch has."""

import pytest
import torch
from monai.data import DataLoader, MetaTensor

from monai_diffens.engines.fusion import FusionStep
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler
from research.features.feature_fusion import FeatureFusionStep, FeaturePrepareBatch
from research.features.study_replay import StudyReplay

SIDE = 12
CONDITIONS = ("T1w", "FLAIR")


@pytest.fixture
def network(tiny_ensembler):
    return tiny_ensembler(conditions=CONDITIONS, with_features=True)


@pytest.fixture
def batch(network):
    """Whole draws: the crop is the volume."""
    items = []
    for _ in range(3):
        label = MetaTensor(torch.rand(1, SIDE, SIDE, SIDE))
        items.append({"image": MetaTensor(label + torch.rand(2, SIDE, SIDE, SIDE)), "label": label})
    replay = StudyReplay(
        source=items,
        bank=network.bank,
        scheduler=TrailingDDIMScheduler(),
        draws=6,
        length=6,
        crop_size=SIDE,
        features=True,
        amp=False,
    )
    return next(iter(DataLoader(replay, batch_size=6)))


def test_it_predicts_what_sampling_predicts(network, batch):
    torch.manual_seed(2)
    x_t, _, _, arguments = FeaturePrepareBatch(2)(batch, torch.device("cpu"))
    kept = arguments["present"][:, :2]
    assert not kept.all() and kept.any(dim=1).all()  # some samples lack a condition
    with torch.no_grad():
        trained = FeatureFusionStep(network)(x_t, **arguments)
        for row in range(6):
            part = slice(row, row + 1)
            sampled = network.predict(x_t[part], arguments["conditions"][part], arguments["timesteps"][part])
            # draws are kept in half precision
            torch.testing.assert_close(trained[part], sampled.prediction, rtol=0.02, atol=0.02)
        plain = FusionStep(network)(x_t, **{k: v for k, v in arguments.items() if k != "maps"})
    assert (trained - plain).abs().max() > 0.05  # the maps are heard


def test_without_maps_it_is_the_plain_step(network, batch):
    del batch["maps"]
    x_t, _, _, arguments = FeaturePrepareBatch(2)(batch, torch.device("cpu"))
    assert "maps" not in arguments
    with torch.no_grad():
        assert torch.equal(
            FeatureFusionStep(network)(x_t, **arguments), FusionStep(network)(x_t, **arguments)
        )


def test_the_alignment_learns(network, batch):
    network.bank.requires_grad_(False)
    x_t, (target, _), _, arguments = FeaturePrepareBatch(2)(batch, torch.device("cpu"))
    (FeatureFusionStep(network)(x_t, **arguments) - target).square().mean().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in network.alignment.parameters())

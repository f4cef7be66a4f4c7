"""The regression baseline: where it starts, what it is given, and what its shapes are."""

import json
from pathlib import Path

import pytest
import torch
from monai.networks.nets import BasicUNet
from torch import nn

from monai_diffens.acquisition.slicing import from_patches, to_patches
from monai_diffens.networks.weights import load_weights
from research.baselines.regression_unet import RegressionUNet

RESEARCH = Path(__file__).parents[2] / "research"

SHAPE = (19, 34, 40)  # no multiple of the network's strides


@pytest.fixture
def conditions() -> torch.Tensor:
    """Two cases of four conditions in a ball; the second lacks the low-resolution scan, the last channel."""
    grid = torch.meshgrid(*(torch.linspace(-1.1, 1.1, n) for n in SHAPE), indexing="ij")
    ball = sum(axis**2 for axis in grid) < 1
    volumes = ball * (0.5 + torch.rand(2, 4, *SHAPE))
    volumes[1, 3] = 0
    return volumes


@pytest.fixture
def small() -> RegressionUNet:
    return RegressionUNet(channels=(8, 8, 8, 8, 8, 8), prior_std=0.4, measured=3)


def test_untrained_it_is_the_scan_or_else_the_base(small, conditions):
    residual = small(conditions)
    assert residual.shape == (2, 1, *SHAPE)
    brain = (conditions > 0).any(dim=1, keepdim=True)
    restored = brain[0] + 0.3 * residual[0]
    assert torch.allclose(restored, conditions[0, 3:], atol=1e-6)
    assert not residual[1].any()


def test_every_condition_and_no_background_counts(small, conditions):
    with torch.no_grad():
        for parameter in small.unet.final_conv.parameters():
            nn.init.normal_(parameter, std=0.1)
        whole = small.eval()(conditions)
        assert not whole[~(conditions > 0).any(dim=1, keepdim=True)].any()
        for channel in range(3):
            less = conditions.clone()
            less[:, channel] = 0
            assert (small(less) - whole).abs().max() > 1e-3


def test_the_scan_narrows_what_is_predicted(small, conditions):
    residual, std = small.prior(conditions, torch.zeros(2, dtype=torch.long))
    assert std.tolist() == pytest.approx([0.4, 1.0]) and residual[0].any() and not residual[1].any()


def test_the_wanted_contrast_decides(conditions):
    network = RegressionUNet(channels=(8,) * 6, prior_std=0.4, num_targets=4, target=3).eval()
    with torch.no_grad():
        for parameter in network.unet.final_conv.parameters():
            nn.init.normal_(parameter, std=0.1)
        flair, t1w = (network(conditions, torch.tensor([number] * 2)) for number in (3, 0))
        assert (flair - t1w).abs().max() > 0.1
        assert torch.equal(network(conditions), flair)
    _, std = network.prior(conditions, torch.tensor([3, 3]))
    assert std.tolist() == pytest.approx([0.4, 1.0])  # its own scan, which the second case lacks
    _, std = network.prior(conditions, torch.tensor([0, 0]))
    assert std.tolist() == pytest.approx([0.4, 0.4])


def test_of_one_condition_it_starts_at_that_and_sees_its_detail(conditions):
    options = {"channels": (8,) * 6, "residual_scale": 0.07}
    one = RegressionUNet(1, base="condition", detail_gain=10.0, **options)
    scan = conditions[:, :1]
    assert not one(scan).any()
    with torch.no_grad():
        for parameter in one.unet.final_conv.parameters():
            nn.init.normal_(parameter, std=0.1)
        residual = one.eval()(scan)
        assert residual.shape == scan.shape and residual[scan == 0].any()
        assert (one(scan + 0.02 * torch.randn_like(scan)) - residual).abs().max() > 0.1
    with pytest.raises(ValueError, match="detail_gain is for one condition"):
        RegressionUNet(detail_gain=10.0)


def test_translations_shipped_weights_give_what_they_gave():
    config = json.loads((RESEARCH / "configs" / "translate" / "evaluate.json").read_text())["regression_def"]
    network = RegressionUNet(**{key: value for key, value in config.items() if key != "_target_"}).eval()
    load_weights(network, RESEARCH / "weights" / "translate" / "regression.pt")
    unet = BasicUNet(3, 4 * 8, 8, features=config["channels"]).eval()
    unet.load_state_dict({name.removeprefix("unet."): value for name, value in network.state_dict().items()})
    grid = torch.meshgrid(*[torch.linspace(-1.1, 1.1, 64)] * 3, indexing="ij")
    scans = (sum(axis**2 for axis in grid) < 1) * (0.5 + torch.rand(1, 4, 64, 64, 64))
    for present in (True, False):
        scans[:, 3] *= present
        brain = (scans > 0).any(dim=1, keepdim=True).float()
        left = from_patches(unet(to_patches(scans, 2)), 2)
        expected = (scans[:, 3:] - brain) / 0.3 + 0.4 * left if present else left
        with torch.no_grad():
            assert torch.allclose(network(scans), expected * brain, rtol=0, atol=1e-6)

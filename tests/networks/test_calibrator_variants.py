"""Variants of the fusion: the same start and the same parameters, and each lacks what it says it lacks."""

from itertools import combinations, product

import pytest
import torch

from monai_diffens.networks.calibrator import VolumeCalibrator
from research.ablation.calibrator_variants import CalibratorVariant

EXPERTS = 3
SUBSETS = [s for n in range(1, EXPERTS + 1) for s in combinations(range(EXPERTS), n)]
SIZE = (6, 5, 7)
FLAGS = [dict(zip(("bias", "softmax"), flags, strict=True)) for flags in product((True, False), repeat=2)]
every_variant = pytest.mark.parametrize("flags", FLAGS, ids=str)
every_subset = pytest.mark.parametrize("present", SUBSETS, ids=str)


def variant(trained: bool = True, kind=CalibratorVariant, **flags) -> VolumeCalibrator:
    torch.manual_seed(3)
    network = kind(EXPERTS, 1, (8, 12), embedding_dim=16, **flags).eval()
    if trained:
        for parameter in network.conv_out.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return network


def batch(present) -> dict[str, torch.Tensor]:
    torch.manual_seed(4)
    mask = torch.tensor([[e in present for e in range(EXPERTS)]] * 2)
    return {
        "x_t": torch.randn(2, 1, *SIZE),
        "conditions": torch.rand(2, 1, *SIZE),
        "predictions": torch.randn(2, EXPERTS, *SIZE) * mask[:, :, None, None, None],
        "timesteps": torch.tensor([20, 960]),
        "present": mask,
    }


@every_variant
@every_subset
def test_starts_exactly_as_the_plain_average(flags, present):
    with torch.no_grad():
        weights, bias = variant(trained=False, **flags)(**batch(present))
    assert torch.equal(bias, torch.zeros(2, 1, *SIZE))
    for e in range(EXPERTS):
        value = 1 / len(present) if e in present else 0.0
        assert torch.equal(weights[:, e], torch.full((2, *SIZE), value))


@every_variant
def test_first_weights_are_the_shipped_networks(flags):
    shipped, other = variant(kind=VolumeCalibrator).state_dict(), variant(**flags).state_dict()
    assert list(shipped) == list(other) and all(torch.equal(shipped[name], other[name]) for name in shipped)


@every_subset
def test_with_everything_it_is_the_shipped_network(present):
    arguments = batch(present) | {"emphasis": torch.tensor([[1.0, 2.0, 0.5]] * 2)}
    with torch.no_grad():
        expected, found = variant(kind=VolumeCalibrator)(**arguments), variant()(**arguments)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize("bias", [True, False])
@every_subset
def test_softmax_stays_among_the_experts_present(bias, present):
    with torch.no_grad():
        weights, added = variant(softmax=True, bias=bias)(**batch(present))
        free, _ = variant()(**batch(present))
    assert (weights >= 0).all() and (weights <= 1).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, *SIZE))
    assert not weights[:, [e for e in range(EXPERTS) if e not in present]].any()
    assert bool(added.any()) is bias
    if len(present) > 1:
        assert weights[:, list(present)].std() > 0.05
        assert free.min() < 0 or free.max() > 1


def test_free_weights_and_softmax_learn_alike_from_the_average():
    torch.manual_seed(5)
    wanted = torch.randn(2, EXPERTS, *SIZE)
    gradients = []
    for softmax in (False, True):
        network = variant(trained=False, softmax=softmax)
        weights, _ = network(**batch((0, 2)))
        (weights * wanted).sum().backward()
        gradients.append(network.conv_out.weight.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
    assert gradients[0].abs().max() > 0.1


@pytest.mark.parametrize("softmax", [True, False])
def test_without_bias_nothing_is_added_and_nothing_of_it_is_learned(softmax):
    network = variant(bias=False, softmax=softmax)
    weights, bias = network(**batch((0, 1, 2)))
    assert not bias.any() and bias.shape == (2, 1, *SIZE)
    weights.square().sum().backward()
    # the last convolution's channels are experts, then the bias, each a patch of 2 x 2 x 2 voxels
    learned = network.conv_out.weight.grad.abs().flatten(1).amax(dim=1) > 0
    assert learned[: EXPERTS * 8].all() and not learned[EXPERTS * 8 :].any()


def test_a_users_weights_reach_the_softmax():
    network, arguments = variant(softmax=True), batch((0, 1, 2))
    with torch.no_grad():
        weights, _ = network(**arguments)
        doubled, _ = network(**arguments, emphasis=torch.tensor([[2.0, 1.0, 0.0]] * 2))
    expected = weights * torch.tensor([2.0, 1.0, 0.0])[:, None, None, None]
    torch.testing.assert_close(doubled, expected / expected.sum(dim=1, keepdim=True))

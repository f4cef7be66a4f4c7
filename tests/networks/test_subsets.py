"""Any subset of conditions from one set of weights, and a user's weights on planes."""

from itertools import combinations

import pytest
import torch
from denoisers import predict

from monai_diffens.acquisition.slicing import PLANES
from monai_diffens.networks.calibrator import average_weights

CONDITIONS = ("a", "b", "c")
SIZE = (9, 12, 7)
SUBSETS = [subset for count in (1, 2, 3) for subset in combinations(range(3), count)]
MODES = ("calibrated", "mean", "alternate", "axial")


@pytest.fixture(scope="module")
def network(tiny_ensembler):
    return tiny_ensembler(conditions=CONDITIONS)


def case(subset=(0, 1, 2), seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    volumes = torch.rand((1, 3, *SIZE), generator=generator)
    for absent in set(range(3)) - set(subset):
        volumes[:, absent] = 0
    return torch.randn((1, 1, *SIZE), generator=generator), volumes, torch.tensor([700])


@pytest.mark.parametrize("subset", SUBSETS, ids=str)
def test_weights_sum_to_one_over_those_present(network, subset):
    fused = predict(network, *case(subset))
    torch.testing.assert_close(fused.weights.sum(dim=1), torch.ones(1, *SIZE), rtol=0, atol=1e-5)
    for name, weights in zip(network.expert_names, fused.weights[0], strict=True):
        here = CONDITIONS.index(name[-1]) in subset
        assert bool(weights.any()) == here
        assert not here or weights.std() > 1e-3  # a map, not a number


@pytest.mark.parametrize("subset", SUBSETS, ids=str)
def test_untrained_it_is_the_plain_average_of_those_present(tiny_ensembler, subset):
    network = tiny_ensembler(untrained=True, conditions=CONDITIONS)
    x_t, volumes, timesteps = case(subset)
    with torch.no_grad():
        everyone = network.bank(x_t, volumes, timesteps)
    here = [e for e, name in enumerate(network.expert_names) if CONDITIONS.index(name[-1]) in subset]
    for mode in ("calibrated", "mean"):
        prediction = predict(network, x_t, volumes, timesteps, mode).prediction
        torch.testing.assert_close(prediction[0, 0], everyone[0, here].mean(dim=0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_cases_of_different_subsets_in_one_batch_are_as_alone(network, mode):
    cases = [case((0, 2), 1), case((1,), 2), case((0, 1, 2), 3)]
    together = predict(network, *(torch.cat(parts) for parts in zip(*cases, strict=True)), mode)
    for i, alone in enumerate(cases):
        expected = predict(network, *alone, mode).prediction[0]
        torch.testing.assert_close(together.prediction[i], expected, rtol=0, atol=1e-5)


def test_one_condition_is_the_mean_of_its_planes(network):
    x_t, volumes, timesteps = case()
    alone = predict(network, x_t, volumes, timesteps, "b").prediction
    only = predict(network, *case((1,)), "mean").prediction
    torch.testing.assert_close(alone, only)
    with torch.no_grad():
        experts = network.bank(x_t, volumes, timesteps)
    torch.testing.assert_close(alone[:, 0], experts[:, 1::3].mean(dim=1), rtol=0, atol=1e-6)
    single = predict(network, x_t, volumes, timesteps, "coronal/c").prediction
    torch.testing.assert_close(single[:, 0], experts[:, network.expert_names.index("coronal/c")])


@pytest.mark.parametrize("mode", ["calibrated", "a"])
def test_a_case_that_nobody_can_predict_is_an_error(network, mode):
    x_t, volumes, timesteps = case(() if mode == "calibrated" else (1, 2))
    with pytest.raises(ValueError, match="has no condition that fusion"):
        predict(network, x_t, volumes, timesteps, mode)


# A user's weights


def test_weights_of_one_change_nothing(network):
    assert network.emphasis({"axial": 1, "coronal": 1.0}) is None
    arguments = case()
    expected = predict(network, *arguments)
    fused = predict(network, *arguments, emphasis=torch.ones(9))
    torch.testing.assert_close(fused.weights, expected.weights, rtol=0, atol=1e-6)
    torch.testing.assert_close(fused.prediction, expected.prediction, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["calibrated", "mean"])
@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_weights_shift_the_fusion_and_still_sum_to_one(network, mode, factor):
    emphasis = network.emphasis({"coronal": factor})
    assert emphasis.tolist() == [1, 1, 1, factor, factor, factor, 1, 1, 1]
    arguments = case()
    before, after = predict(network, *arguments, mode), predict(network, *arguments, mode, emphasis=emphasis)
    torch.testing.assert_close(after.weights.sum(dim=1), torch.ones_like(after.weights.sum(dim=1)))
    moved = (after.weights - before.weights)[:, 3:6].mean()
    assert (moved > 0.01) if factor > 1 else (moved < -0.01)
    if mode == "mean":  # factors times equal shares, renormalised
        torch.testing.assert_close(after.weights.flatten(), emphasis / emphasis.sum())


def test_planes_without_weight_are_not_in_the_turn(network):
    emphasis = network.emphasis({"coronal": 0})
    turns = [network.active("alternate", step, emphasis).nonzero().flatten().tolist() for step in range(3)]
    assert turns == [[0, 1, 2], [6, 7, 8], [0, 1, 2]]


@pytest.mark.parametrize(
    ("planes", "message"),
    [
        ({"axail": 1}, "plane_weights: unknown 'axail': use axial, coronal, sagittal"),
        ({"axial": -1}, "'axial' must be a number of 0 or more, got -1"),
        ({"axial": "half"}, "'axial' must be a number of 0 or more, got 'half'"),
        (dict.fromkeys(PLANES, 0), "leave no expert"),
    ],
)
def test_weights_that_make_no_sense(network, planes, message):
    with pytest.raises(ValueError, match=message):
        network.emphasis(planes)


def test_average_weights():
    present = torch.tensor([[True, True, False], [False, True, False]])
    assert average_weights(present).tolist() == [[0.5, 0.5, 0], [0, 1, 0]]
    assert average_weights(present, torch.tensor([[3.0, 1.0, 5.0]] * 2)).tolist() == [
        [0.75, 0.25, 0],
        [0, 1, 0],
    ]


def test_scripted_with_several_conditions(network):
    x_t, volumes, timesteps = case((0, 2))
    x = torch.cat([x_t, volumes], dim=1)
    with torch.no_grad():
        expected, output = network(x, timesteps), torch.jit.script(network)(x, timesteps)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)

"""The fusion's weights: the plain average at the start, always a sum of 1, and local."""

from itertools import combinations

import pytest
import torch
from monai.networks.utils import pixelshuffle, pixelunshuffle

from monai_diffens.acquisition.slicing import from_patches, to_patches
from monai_diffens.networks.calibrator import VolumeCalibrator, average_weights

EXPERTS = 3
SUBSETS = [s for n in range(1, EXPERTS + 1) for s in combinations(range(EXPERTS), n)]
SIZE = (10, 13, 7)
# Voxels on each side that decide a voxel's weights, by the number of levels; measured below.
RECEPTIVE_FIELD = {1: 9, 2: 23, 3: 51}


def calibrator(levels: int = 2, trained: bool = True) -> VolumeCalibrator:
    """A small calibrator; "trained": its last layer is random instead of zero."""
    torch.manual_seed(3)
    network = VolumeCalibrator(EXPERTS, 1, (8, 12, 16)[:levels], embedding_dim=16).eval()
    if trained:
        for parameter in network.conv_out.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return network


def batch(present, size=SIZE, count: int = 3) -> dict[str, torch.Tensor]:
    """Arguments of forward; ``present``: expert numbers for all, or a list of them for each."""
    rows = present if isinstance(present, list) else [present] * count
    mask = torch.tensor([[e in row for e in range(EXPERTS)] for row in rows])
    count = len(rows)
    return {
        "x_t": torch.randn(count, 1, *size),
        "conditions": torch.rand(count, 1, *size),
        "predictions": torch.randn(count, EXPERTS, *size) * mask[:, :, None, None, None],
        "timesteps": torch.tensor([20, 480, 960])[:count],
        "present": mask,
    }


def run(network: VolumeCalibrator, arguments: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return network(**arguments)


@pytest.mark.parametrize("present", SUBSETS, ids=str)
def test_starts_as_the_plain_average_of_whoever_is_present(present):
    weights, bias = run(calibrator(trained=False), batch(present))
    assert torch.equal(bias, torch.zeros(3, 1, *SIZE))
    for e in range(EXPERTS):
        value = 1 / len(present) if e in present else 0.0
        assert torch.equal(weights[:, e], torch.full((3, *SIZE), value))


@pytest.mark.parametrize("present", SUBSETS, ids=str)
@pytest.mark.parametrize("size", [SIZE, (8, 8, 8), (1, 5, 6)], ids=str)
def test_weights_sum_to_one_over_whoever_is_present(present, size):
    weights, bias = run(calibrator(), batch(present, size))
    assert weights.shape == (3, EXPERTS, *size) and bias.shape == (3, 1, *size)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3, *size), rtol=0, atol=1e-5)
    absent = [e for e in range(EXPERTS) if e not in present]
    assert (weights[:, absent] == 0).all()
    assert bias.std() > 0.01
    if len(present) > 1:
        assert weights[:, present].std() > 0.01
        assert weights.min() < 0 or weights.max() > 1  # no softmax: it may leave the experts' hull


def test_what_an_absent_expert_says_is_not_heard():
    arguments = batch([(0, 2), (1,), (0, 1, 2)])
    expected = run(calibrator(), arguments)
    absent = ~arguments["present"][:, :, None, None, None]
    arguments["predictions"] = torch.where(absent, 100 * torch.randn(SIZE), arguments["predictions"])
    for value, before in zip(run(calibrator(), arguments), expected, strict=True):
        torch.testing.assert_close(value, before, rtol=0, atol=1e-6)


@pytest.mark.parametrize("order", [[2, 0, 1], [1], [0, 0, 2, 1, 1]], ids=str)
def test_a_case_is_weighed_alike_in_any_batch(order):
    network, arguments = calibrator(), batch([(0, 2), (1,), (0, 1, 2)])
    expected = run(network, arguments)
    chosen = run(network, {name: value[order] for name, value in arguments.items()})
    for value, before in zip(chosen, expected, strict=True):
        torch.testing.assert_close(value, before[order], rtol=0, atol=1e-5)


def test_timestep_and_presence_modulate_the_weights():
    network, arguments = calibrator(), batch((0, 1, 2), count=1)
    weights, _ = run(network, arguments)
    for name, value in (("timesteps", torch.tensor([900])), ("x_t", arguments["x_t"] + 1)):
        other, _ = run(network, arguments | {name: value})
        assert (other - weights).abs().max() > 1e-3, name


@pytest.mark.parametrize(("levels", "axis"), [(1, 0), (2, 0), (2, 1), (2, 2), (3, 0)])
def test_receptive_field(levels, axis):
    network = calibrator(levels)
    size = [4 * network.divisor if i == axis else 4 for i in range(3)]
    size[axis] = (2 * RECEPTIVE_FIELD[levels] // network.divisor + 4) * network.divisor
    centre = size[axis] // 2 // network.divisor * network.divisor
    arguments = batch((0, 1, 2), size, count=1)
    inputs = [arguments[name].requires_grad_() for name in ("x_t", "conditions", "predictions")]
    reach = 0
    for voxel in range(centre, centre + network.divisor):  # it differs by the place in the coarsest cell
        weights, bias = network(**arguments)
        seen = (weights[:, 0] + bias[:, 0]).select(1 + axis, voxel).sum()
        for gradient in torch.autograd.grad(seen, inputs):
            others = [d for d in range(5) if d != 2 + axis]
            where = gradient.abs().amax(dim=others).nonzero().flatten()
            reach = max(reach, int((where - voxel).abs().max()))
    assert reach == RECEPTIVE_FIELD[levels]


@pytest.mark.parametrize("axis", range(3))
def test_a_window_with_a_halo_is_the_whole_inside(axis):
    network = calibrator()
    halo = -(-RECEPTIVE_FIELD[2] // network.divisor) * network.divisor
    start, stop = 32, 44
    arguments = batch((0, 1, 2), [80 if i == axis else 9 for i in range(3)], count=1)
    whole = run(network, arguments)

    def cut(volume: torch.Tensor, low: int, high: int) -> torch.Tensor:
        return volume.narrow(2 + axis, low, high - low)

    for extra in (0, network.divisor):  # a wider halo changes nothing
        low, high = start - halo - extra, stop + halo + extra
        window = {n: cut(v, low, min(high, 80)) if v.ndim == 5 else v for n, v in arguments.items()}
        for value, expected in zip(run(network, window), whole, strict=True):
            inside = cut(value, start - low, stop - low)
            torch.testing.assert_close(inside, cut(expected, start, stop), rtol=0, atol=1e-5)
    narrow = {n: cut(v, start, stop) if v.ndim == 5 else v for n, v in arguments.items()}
    assert (run(network, narrow)[0] - cut(whole[0], start, stop)).abs().max() > 1e-3  # the halo is needed


def test_weights_learn_from_the_loss():
    network, arguments = calibrator(trained=False), batch((0, 1, 2))
    weights, bias = network(**arguments)
    loss = ((weights * arguments["predictions"]).sum(dim=1) + bias[:, 0] - 1).square().mean()
    loss.backward()
    assert network.conv_out.weight.grad.abs().max() > 0 and network.conv_out.bias.grad.abs().max() > 0


def test_average_weights():
    present = torch.tensor([[True, False, True], [False, True, False], [False, False, False]])
    assert average_weights(present).tolist() == [[0.5, 0, 0.5], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("side", [1, 2, 4])
def test_patches_are_those_of_monai_and_come_back(side):
    volume = torch.randn(2, 3, 4, 8, 12)
    patches = to_patches(volume, side)
    assert torch.equal(patches, pixelunshuffle(volume, 3, side))
    assert torch.equal(from_patches(patches, side), volume)
    assert torch.equal(from_patches(patches, side), pixelshuffle(patches, 3, side))

"""The experts' decoder maps in the calibrator: in their place, silent at the start, and learned."""

import pytest
import torch

from monai_diffens.acquisition.slicing import PLANES, plane_axis
from research.features.alignment import FeatureAlignment

SIZE = (10, 13, 7)
# patch stem of the experts, their levels, levels of the calibrator
NETWORKS = [(4, 2, 2), (2, 2, 2), (4, 3, 3), (2, 3, 3), (1, 2, 3)]
every_network = pytest.mark.parametrize(("stem", "levels", "fused"), NETWORKS)


@pytest.fixture
def ensembler(tiny_ensembler):
    """Function (stem, levels of the experts, levels of the calibrator) to a model with alignment."""

    def build(stem: int, levels: int, fused: int, **options):
        widths = {"channels": (8, 16, 24)[:levels], "calibrator_channels": (8, 12, 16)[:fused]}
        return tiny_ensembler(stem=stem, with_features=True, **widths, **options)

    return build


def volumes(size=SIZE) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(2, 1, *size), torch.rand(2, 1, *size), torch.tensor([30, 870])


@every_network
def test_switching_it_on_changes_nothing_until_it_is_trained(ensembler, stem, levels, fused):
    network = ensembler(stem, levels, fused)
    for convolution in FeatureAlignment(
        network.bank.expert_planes,
        network.bank.experts[0].feature_channels,
        network.bank.experts[0].feature_strides,
        (12, 16)[: fused - 1],
        network.calibrator.level_strides[1:],
    ).align:
        assert all((parameter == 0).all() for parameter in convolution.parameters())
    with torch.no_grad():
        trained = network.predict(*volumes()).prediction
        for parameter in network.alignment.parameters():
            parameter.zero_()
        torch.manual_seed(1)
        silent = network.predict(*volumes())
        network.alignment = None
        torch.manual_seed(1)
        off = network.predict(*volumes())
    torch.testing.assert_close(silent, off, rtol=0, atol=0)
    assert (trained - off.prediction).abs().max() > 1e-3  # random weights are heard


@every_network
@pytest.mark.parametrize("size", [SIZE, (16, 16, 16), (3, 4, 5)], ids=str)
def test_shapes(ensembler, stem, levels, fused, size):
    network = ensembler(stem, levels, fused)
    x_t, conditions, timesteps = volumes(size)
    with torch.no_grad():
        _, maps = network.bank.predict_with_features(x_t, conditions, timesteps)
        aligned = network.alignment(maps, 2)
        assert network.predict(x_t, conditions, timesteps).prediction.shape == (2, 1, *size)
    assert len(aligned) == fused - 1
    for volume, width, stride in zip(aligned, (12, 16), network.calibrator.level_strides[1:], strict=False):
        assert volume.shape[:2] == (2, width)
        assert all(n >= -(-side // stride) for n, side in zip(volume.shape[2:], size, strict=True))


@every_network
@pytest.mark.parametrize("plane", PLANES)
def test_each_position_takes_the_voxels_that_it_spans(ensembler, stem, levels, fused, plane):
    """Maps that hold their own place in the volume, averaged, are the place of the level's positions."""
    network = ensembler(stem, levels, fused, planes=(plane,))
    size = (32, 16, 48)
    axis = plane_axis(plane)
    expert, alignment = network.bank.experts[0], network.alignment
    grid = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in size), indexing="ij"))
    maps = []
    for channels, stride in zip(expert.feature_channels, expert.feature_strides, strict=True):
        kernel = [1 if i == axis else stride for i in range(3)]
        places = torch.nn.functional.avg_pool3d(grid[None], kernel)[0].movedim(1 + axis, 0)  # (N, 3, H, W)
        maps.append(torch.cat([places, torch.zeros(len(places), channels - 3, *places.shape[2:])], dim=1))
    with torch.no_grad():
        for convolution in alignment.align:
            for parameter in convolution.parameters():
                parameter.zero_()
            for i in range(3):
                convolution.weight[i, i] = 1 / convolution.weight[0, 0].numel()
        aligned = alignment([maps], 1)
    for volume, stride in zip(aligned, network.calibrator.level_strides[1:], strict=True):
        expected = torch.nn.functional.avg_pool3d(grid[None], stride)
        torch.testing.assert_close(volume[:, :3], expected, rtol=0, atol=1e-4)


@every_network
def test_gradient_reaches_every_weight(ensembler, stem, levels, fused):
    network = ensembler(stem, levels, fused)
    network.predict(*volumes()).prediction.square().mean().backward()
    for name, parameter in network.alignment.named_parameters():
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("expert", range(3))
def test_a_map_is_heard_where_its_slices_lie(ensembler, expert):
    network = ensembler(2, 2, 2)
    axis, stride = plane_axis(PLANES[expert]), network.calibrator.level_strides[1]
    x_t, conditions, timesteps = (value[:1] for value in volumes((16, 20, 24)))
    with torch.no_grad():
        _, maps = network.bank.predict_with_features(x_t, conditions, timesteps)
        before = network.alignment(maps, 1)[0]
        for n in (0, 5, 15):
            changed = [list(levels) for levels in maps]
            changed[expert][-1] = changed[expert][-1].clone()
            changed[expert][-1][n] += 1
            moved = (network.alignment(changed, 1)[0] - before).abs().amax(dim=[0, 1]) > 1e-4
            others = [i for i in range(3) if i != axis]
            assert moved.any(dim=others[1]).any(dim=others[0]).nonzero().tolist() == [[n // stride]]


def test_absent_experts_bring_no_features(ensembler):
    network = ensembler(2, 2, 2)
    x_t, conditions, timesteps = volumes()
    with torch.no_grad():
        both = torch.tensor([True, False, True])
        _, maps = network.bank.predict_with_features(x_t, conditions, timesteps, both)
        _, first = network.bank.predict_with_features(
            x_t, conditions, timesteps, torch.tensor([True, False, False])
        )
        _, last = network.bank.predict_with_features(
            x_t, conditions, timesteps, torch.tensor([False, False, True])
        )
        together, one, other = (network.alignment(some, 2)[0] for some in (maps, first, last))
    x, y, z = together.shape[2:]
    torch.testing.assert_close(together, one[:, :, :x, :y, :z] + other[:, :, :x, :y, :z], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((8, 4), (4, 4), (6, 6, 6), (4, 8, 16)), "3 levels take features, the experts have 2"),
        (((8, 4), (8, 8), (6,), (4,)), "stride 4 cannot take maps of stride 8"),
    ],
)
def test_what_does_not_fit_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        FeatureAlignment(("axial",), *arguments)

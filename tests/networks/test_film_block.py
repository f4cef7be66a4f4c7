"""The 3D block: its norm is of each voxel, its modulation costs no pass of its own and changes nothing."""

import pytest
import torch
import torch.nn.functional as F

from monai_diffens.networks.calibrator import ChannelNorm, FilmBlock


@pytest.fixture
def norm() -> ChannelNorm:
    """A norm that scales and shifts."""
    torch.manual_seed(0)
    network = ChannelNorm(6)
    torch.nn.init.normal_(network.weight)
    torch.nn.init.normal_(network.bias)
    return network


def test_the_norm_is_layer_norm_of_each_voxel(norm):
    x = torch.randn(2, 6, 3, 4, 5)
    expected = F.layer_norm(x.movedim(1, -1), (6,), norm.weight, norm.bias).movedim(-1, 1)
    torch.testing.assert_close(norm(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2])
def test_a_modulated_norm_is_scaled_and_shifted_by_case(norm, count):
    x, scale, shift = torch.randn(count, 6, 3, 4, 5), torch.randn(count, 6), torch.randn(count, 6)
    expected = norm(x) * (1 + scale[:, :, None, None, None]) + shift[:, :, None, None, None]
    torch.testing.assert_close(norm.modulated(x, scale, shift), expected, rtol=1e-5, atol=1e-5)


def test_a_block_learns_alike_from_one_case_and_from_several():
    torch.manual_seed(0)
    block, x, embedding = FilmBlock(4, 6, 8), torch.randn(2, 4, 5, 6, 7), torch.randn(2, 8)
    gradients = []
    for parts in ([x], x.split(1)):
        block.zero_grad()
        told = [embedding] if len(parts) == 1 else embedding.split(1)
        for part, emb in zip(parts, told, strict=True):
            block(part, emb).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in block.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)
    assert all(gradient.abs().max() > 0 for gradient in gradients[0])


@pytest.mark.parametrize("channels", [4, 6])
def test_what_is_changed_in_place_is_the_block_s_own(channels):
    block, x, embedding = FilmBlock(4, channels, 8), torch.randn(1, 4, 5, 6, 7), torch.randn(1, 8)
    given, expected = x.clone(), block(x, embedding).detach()
    with torch.no_grad():  # in place without gradients alone
        torch.testing.assert_close(block(x, embedding), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(x, given)

"""Layouts, types and the shared timestep change how a network computes, never what."""

import pytest
import torch

from monai_diffens.networks.calibrator import VolumeCalibrator
from monai_diffens.networks.plane_denoiser import PlaneDenoiser
from monai_diffens.networks.scriptable_unet import in_fast_layout

CHANNELS_LAST = torch.channels_last


@pytest.fixture(scope="module")
def expert() -> PlaneDenoiser:
    """A whole expert, every layer of which says something."""
    torch.manual_seed(0)
    network = PlaneDenoiser().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


def test_large_maps_in_bf16_without_gradients_are_channels_last():
    x = torch.randn(2, 16, 32, 32)
    with torch.no_grad():
        large = in_fast_layout(x.bfloat16(), 1024)
        assert large.is_contiguous(memory_format=CHANNELS_LAST) and torch.equal(large, x.bfloat16())
        assert in_fast_layout(large, 1023).is_contiguous()
        assert in_fast_layout(x, 1024) is x
    assert in_fast_layout(large, 1024).is_contiguous()  # with gradients


def test_an_expert_gives_in_bf16_what_it_gives_in_float32(expert):
    x, timesteps = torch.randn(2, 6, 160, 144), torch.tensor([999])  # maps of 40 x 36 positions
    with torch.no_grad():
        expected = expert(x, timesteps)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = expert(x, timesteps)
    assert (result.float() - expected).square().mean() < 1e-3 * expected.square().mean()


def test_the_fusion_gives_in_bf16_what_it_gives_in_float32():
    torch.manual_seed(0)
    network, size = VolumeCalibrator().eval(), (21, 26, 30)
    for parameter in network.conv_out.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    volumes = torch.randn(1, 1, *size), torch.rand(1, 1, *size), torch.randn(1, 3, *size)
    told = torch.tensor([999]), torch.tensor([[True, True, True]])
    with torch.no_grad():
        expected = network(*volumes, *told)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = network(*volumes, *told)
    for value, sought in zip(result, expected, strict=True):
        assert value.shape == sought.shape
        assert (value.float() - sought).square().mean() < 1e-3 * sought.square().mean()


def test_one_timestep_for_all_is_the_same_one_for_each(expert):
    x = torch.randn(3, 6, 32, 48)
    with torch.no_grad():
        shared, each = expert(x, torch.tensor([500])), expert(x, torch.tensor([500] * 3))
        other = expert(x, torch.tensor([500, 500, 20]))
    torch.testing.assert_close(other[:2], each[:2], rtol=1e-4, atol=1e-4)
    read = (other[2] - each[2]).abs().mean()  # what another timestep changes
    assert (shared - each).abs().mean() < 1e-3 * read

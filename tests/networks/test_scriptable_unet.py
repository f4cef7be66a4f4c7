"""The replaced blocks compute what MONAI's do, with fewer operations."""

import pytest
import torch
from monai.networks.nets import DiffusionModelUNet
from torch.utils.flop_counter import FlopCounterMode

from monai_diffens.networks.scriptable_unet import ScriptableUNet

OPTIONS = {
    "spatial_dims": 2,
    "in_channels": 3,
    "out_channels": 2,
    "channels": (16, 24, 32),
    "num_res_blocks": 1,
    "attention_levels": (False,) * 3,
    "norm_num_groups": 8,
    "num_head_channels": 8,
}


@pytest.fixture
def pair() -> tuple[DiffusionModelUNet, ScriptableUNet]:
    """MONAI's network and ours with its weights; none is zero, as some begin."""
    stock, ours = DiffusionModelUNet(**OPTIONS), ScriptableUNet(**OPTIONS)
    for parameter in stock.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    ours.load_state_dict(stock.state_dict())
    return stock, ours


@pytest.mark.parametrize("size", [(16, 24), (20, 12)])
def test_predictions_and_gradients_are_those_of_monai(pair, size):
    stock, ours = pair
    x, timesteps = torch.randn(2, 3, *size), torch.tensor([3, 700])
    expected = stock(x, timesteps)
    torch.testing.assert_close(ours(x, timesteps), expected, rtol=1e-4, atol=1e-5)
    expected.square().sum().backward()
    ours(x, timesteps).square().sum().backward()
    found, wanted = ([parameter.grad for parameter in network.parameters()] for network in (ours, stock))
    rounding = 1e-6 * max(float(gradient.abs().max()) for gradient in wanted)  # some are 0 but for it
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=rounding)


def test_upsampling_takes_four_ninths_of_the_products(pair):
    counts = []
    for network in pair:
        upsampler = network.up_blocks[0].upsampler
        with FlopCounterMode(display=False) as counter:
            upsampler(torch.randn(1, 32, 64, 64), None)
        counts.append(counter.get_total_flops())
    joined = 2 * 9 * 16 * 32**2  # of joining the weights, whatever the image's size
    assert counts[1] - joined == counts[0] * 4 // 9

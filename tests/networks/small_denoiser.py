"""A small 2D expert with random weights, and slices for it."""

import torch

from monai_diffens.acquisition.slicing import to_slice_patches
from monai_diffens.networks.plane_denoiser import PlaneDenoiser

CONDITIONS = 5
SMALL = {"channels": (8, 16), "norm_num_groups": 4, "num_head_channels": 8}


def denoiser(**options) -> PlaneDenoiser:
    """A small network with random weights everywhere: MONAI's zero-initialised layers would hide errors."""
    network = PlaneDenoiser(condition_channels=CONDITIONS, **(SMALL | options)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network


def batch(size: tuple[int, int] = (16, 16), count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Slices with their conditions, and timesteps."""
    x = torch.cat([torch.randn(count, 1, *size), torch.rand(count, CONDITIONS, *size)], dim=1)
    return x, torch.tensor([3, 500, 990, 41])[:count]


def read(network: PlaneDenoiser, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """What the U-Net reads."""
    patches = to_slice_patches(x, network.stem, network.divisor)
    return network.read(patches[:, 0], list(patches[:, 1:].unbind(1)), timesteps, x.new_zeros(1, 0))

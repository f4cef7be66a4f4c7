"""The 3D diffusion baseline: where it starts, any size, windows, and the inferer that drives it."""

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from monai_diffens.acquisition.slicing import from_patches
from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from monai_diffens.schedulers.trailing_ddim import TrailingDDIMScheduler
from monai_diffens.transforms.thick_slices import measurement_for, thick_slice
from research.baselines.detail import detail_patches
from research.baselines.volume_denoiser import VolumeDenoiser

SMALL = {
    "channels": (8, 16),
    "norm_num_groups": 4,
    "num_head_channels": 8,
    "stem": 2,
    "window": 16,
    "overlap": 0.5,
}
T = torch.tensor([999])


@pytest.fixture
def network() -> VolumeDenoiser:
    """A small one that predicts something."""
    torch.manual_seed(0)
    small = VolumeDenoiser(**SMALL).eval()
    for parameter in small.unet.out.parameters():
        nn.init.normal_(parameter, std=0.1)
    return small


@pytest.fixture
def scan() -> MetaTensor:
    """A ball of texture (1, 20, 24, 27), pooled by 4."""
    shape = (20, 24, 27)
    grid = torch.meshgrid(*(torch.linspace(-1.1, 1.1, n) for n in shape), indexing="ij")
    return thick_slice(MetaTensor(((sum(axis**2 for axis in grid) < 1) * torch.rand(shape))[None]), (4, 4, 4))


def test_untrained_it_is_the_condition():
    assert not VolumeDenoiser(**SMALL).eval()(torch.rand(1, 2, 8, 8, 8), T).any()


@pytest.mark.parametrize("shape", [(8, 8, 8), (5, 9, 14)])
@torch.no_grad()
def test_any_size_and_what_it_sees(network, shape):
    x = torch.rand(2, 2, *shape)
    steps = torch.tensor([400, 999])
    whole = network(x, steps)
    assert whole.shape == (2, 1, *shape) and whole.any()
    other_noise, other_scan = x.clone(), x.clone()
    other_noise[:, 0] += torch.randn(shape)
    other_scan[:, 1] += 0.02 * torch.randn(shape)
    changed = (network(other_noise, steps) - whole).abs().flatten(1).amax(dim=1)
    assert changed[0] > 1e-3 and changed[1] < 1e-4  # at T - 1 the sample is noise alone, and silent
    assert ((network(other_scan, steps) - whole).abs().flatten(1).amax(dim=1) > 1e-2).all()


@torch.no_grad()
def test_windows(network):
    x = torch.rand(1, 2, 16, 16, 16)
    one = network.predict(x[:, :1], x[:, 1:], T)
    assert torch.allclose(one.prediction, network(x, T), atol=1e-6)
    assert one.weights.item() == 1 and not one.bias.any()
    x = torch.rand(1, 2, 16, 16, 30)
    several = network.predict(x[:, :1], x[:, 1:], T).prediction
    assert torch.allclose(several[..., :8], network(x[..., :16], T)[..., :8], atol=1e-6)
    assert several.shape == (1, 1, 16, 16, 30)
    doubled = network.predict(x[:, :1], x[:, 1:], T, project=lambda v: 2 * v).prediction
    assert torch.allclose(doubled, 2 * several)


@pytest.mark.parametrize("num_steps", [1, 2])
def test_the_samplers_result_agrees_with_the_scan(network, scan, num_steps):
    options = {"num_steps": num_steps, "progress": False, "amp": False, "project_experts": True}
    inferer = DiffEnsemblerInferer(TrailingDDIMScheduler(), fusion="mean", **options)
    result = inferer(scan[None], network)
    assert result.shape == (1, 1, *scan.shape[1:])
    measure = measurement_for(scan.shape[1:], (4, 4, 4))
    assert (result - scan).abs().max() > 1e-3
    assert torch.allclose(measure(result[0].as_tensor()), measure(scan.as_tensor()), atol=1e-3)


def test_what_one_expert_lacks_is_refused(network, scan):
    with pytest.raises(ValueError, match="unknown fusion 'calibrated'"):
        DiffEnsemblerInferer(TrailingDDIMScheduler(), progress=False)(scan[None], network)
    with pytest.raises(ValueError, match="one expert has none"):
        network.emphasis({"image": 2.0})


def test_detail_and_mean_are_the_whole_condition():
    condition = torch.rand(2, 1, 8, 4, 12)
    patches = detail_patches(condition, 4, 10.0)
    assert patches.shape == (2, 65, 2, 1, 3)
    assert torch.allclose(patches[:, :-1].mean(dim=1), torch.zeros(1), atol=1e-6)
    back = patches[:, :-1] / 10 + (patches[:, -1:] + 1) / 2
    assert torch.allclose(from_patches(back, 4), condition, atol=1e-6)

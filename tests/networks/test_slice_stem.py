"""The ends of a 2D expert: patches, what is known beforehand, and slices that share their neighbours."""

import pytest
import torch
import torch.nn.functional as F
from small_denoiser import CONDITIONS, batch, denoiser, read

from monai_diffens.networks.plane_denoiser import PlaneDenoiser
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler

PRIOR = {"num_class_embeds": 2, "prior_scale": 0.3}


class Runs(torch.nn.Module):
    """A denoiser asked for runs of slices, as scripted code asks it."""

    def __init__(self, network: PlaneDenoiser) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        slices: list[torch.Tensor],
        around: list[torch.Tensor],
        timesteps: torch.Tensor,
        class_labels: torch.Tensor,
    ) -> list[torch.Tensor]:
        return self.network.predict_runs(slices, around, timesteps, class_labels, torch.ones(1, 1))


@pytest.mark.parametrize("stem", [2, 4])
def test_stem_moves_every_voxel_of_its_patch_and_scales_what_it_says(stem):
    network = denoiser(stem=stem)
    x, timesteps = batch((8, 16))
    patches = read(network, x, timesteps)
    signal = TrailingDDIMScheduler().alphas_cumprod[timesteps].sqrt().reshape(-1, 1, 1, 1)
    per_channel = stem**2
    noisy, detail = patches[:, :per_channel], patches[:, per_channel:-1]
    mean = (patches[:, -1:] + 1) / 2
    torch.testing.assert_close(F.pixel_shuffle(noisy, stem), signal * x[:, :1])
    middle = x[:, 1 + CONDITIONS // 2]
    for row in range(8 // stem):
        for column in range(16 // stem):
            patch = middle[:, row * stem : (row + 1) * stem, column * stem : (column + 1) * stem]
            torch.testing.assert_close(mean[:, 0, row, column], patch.mean(dim=(1, 2)))
    # nothing of the condition is lost: detail plus patch mean is every condition slice again
    base = mean.repeat_interleave(stem, 2).repeat_interleave(stem, 3)
    torch.testing.assert_close(F.pixel_shuffle(detail, stem) / network.detail_gain + base, x[:, 1:])


@pytest.mark.parametrize("scripted", [False, True], ids=["python", "scripted"])
@pytest.mark.parametrize("single", [True, False], ids=["one timestep", "many"])
@pytest.mark.parametrize("stds", [None, [1.0, 0.4]], ids=["plain", "prior"])
def test_runs_of_slices_are_predicted_as_slices_with_neighbours_of_their_own(stds, single, scripted):
    network = denoiser(stem=2, prior_stds=stds, **PRIOR)
    sizes, groups = (3, 1, 4), torch.tensor([0, 1, 1, 0, 0, 1, 0, 1])
    runs = [torch.randn(size, 1, 13, 10) for size in sizes]
    around = [torch.rand(size + CONDITIONS - 1, 1, 13, 10) for size in sizes]
    timesteps = torch.randint(1000, (8,), generator=torch.Generator().manual_seed(0))
    if single:
        timesteps, groups = timesteps[:1], groups[1:2]
    windows = [shown[:, 0].unfold(0, CONDITIONS, 1).movedim(3, 1) for shown in around]
    x = torch.cat([torch.cat(pair, dim=1) for pair in zip(runs, windows, strict=True)])
    with torch.no_grad():
        expected = network(x, timesteps.expand(8), None, groups.expand(8))
        run = torch.jit.script(Runs(network)) if scripted else Runs(network)
        predictions = run(runs, around, timesteps, groups)
    assert [tuple(each.shape) for each in predictions] == [(size, 1, 13, 10) for size in sizes]
    torch.testing.assert_close(torch.cat(list(predictions)), expected, rtol=1e-4, atol=1e-5)


def test_a_prior_that_knows_nothing_changes_nothing():
    x, timesteps = batch()
    groups = torch.tensor([0, 1, 0])
    without, knowing_nothing = (denoiser(prior_stds=stds, **PRIOR) for stds in (None, [1.0, 1.0]))
    knowing_nothing.load_state_dict(without.state_dict())
    outputs = [network(x, timesteps, class_labels=groups) for network in (without, knowing_nothing)]
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("timestep", [300, 700, 999])
def test_a_silent_network_with_a_prior_is_the_best_linear_guess(timestep):
    """Of samples that lie 0.4 about the condition, the error it leaves is that of the theory."""
    network = denoiser(prior_stds=[1.0, 0.4], **PRIOR)
    for parameter in network.unet.out.parameters():
        torch.nn.init.zeros_(parameter)
    condition = 0.5 + torch.rand(64, CONDITIONS, 16, 16)
    condition[:, :, :4] = 0  # outside of the brain
    middle = condition[:, 2:3]
    clean = (middle - (middle > 0).float()) / 0.3 + 0.4 * torch.randn_like(middle)
    noise, timesteps = torch.randn_like(clean), torch.full((64,), timestep)
    scheduler = TrailingDDIMScheduler()
    x_t = scheduler.add_noise(clean, noise, timesteps)
    target = scheduler.get_velocity(clean, noise, timesteps)
    with torch.no_grad():
        v = network(torch.cat([x_t, condition], dim=1), timesteps, class_labels=torch.ones(64).long())
    alpha2 = float(scheduler.alphas_cumprod[timestep])
    error = (v - target).square().mean()
    assert float(error) == pytest.approx(0.16 / (0.16 * alpha2 + 1 - alpha2), rel=0.05)


def test_a_prior_scripts():
    network = denoiser(prior_stds=[1.0, 0.4], **PRIOR)
    x, timesteps = batch()
    groups = torch.tensor([0, 1, 1])
    scripted = torch.jit.script(network)(x, timesteps, class_labels=groups)
    torch.testing.assert_close(scripted, network(x, timesteps, class_labels=groups))

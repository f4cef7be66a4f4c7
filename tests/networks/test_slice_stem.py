"""The ends of a 2D expert: patches, and slices that share their neighbours."""

import pytest
import torch
import torch.nn.functional as F
from small_denoiser import CONDITIONS, batch, denoiser, read

from monai_diffens.networks.plane_denoiser import PlaneDenoiser
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler


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
def test_runs_of_slices_are_predicted_as_slices_with_neighbours_of_their_own(single, scripted):
    network = denoiser(stem=2, num_class_embeds=2)
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

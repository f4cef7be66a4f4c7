"""The 2D expert: MONAI's U-Net behind a stem, block for block, for any slice size, and scriptable."""

import pytest
import torch
import torch.nn.functional as F
from monai.inferers import DiffusionInferer
from monai.networks.nets import DiffusionModelUNet

from monai_diffens.networks.plane_denoiser import PlaneDenoiser
from monai_diffens.schedulers.trailing_ddim import TrailingDDIMScheduler

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
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        return self.network.predict_runs(slices, around, timesteps, class_labels)


def read(network: PlaneDenoiser, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """What the U-Net of a denoiser without a prior reads."""
    patches = network.slice_stem.patches(x)
    return network.slice_stem.read(patches[:, 0], list(patches[:, 1:].unbind(1)), timesteps)


@pytest.mark.parametrize("stem", [2, 4])
@pytest.mark.parametrize("size", [(16, 16), (13, 21), (1, 40), (7, 3)], ids=str)
def test_any_slice_size(stem, size):
    network = denoiser(stem=stem)
    x, timesteps = batch(size)
    prediction, features = network.predict_with_features(x, timesteps)
    assert prediction.shape == (3, 1, *size)
    assert torch.equal(prediction, network(x, timesteps))
    padded = [side + -side % (stem * 2) for side in size]
    # each block of MONAI's decoder ends with its upsampling, so both levels come at the stem's resolution
    assert [m.shape for m in features] == [
        (3, channels, padded[0] // stem, padded[1] // stem) for channels in network.feature_channels
    ]


def test_feature_maps_of_three_levels_come_coarsest_first():
    network = denoiser(stem=2, channels=(4, 8, 12), num_head_channels=4)
    _, features = network.predict_with_features(*batch((32, 24)))
    assert [tuple(m.shape[1:]) for m in features] == [(12, 8, 6), (8, 16, 12), (4, 16, 12)]
    assert network.feature_channels == (12, 8, 4)
    assert network.feature_strides == (4, 2, 2)


@pytest.mark.parametrize(
    "options",
    [
        {"stem": 2},
        {"stem": 4, "channels": (4, 8, 12), "num_head_channels": 4},
        {"stem": 2, "num_res_blocks": 2},
        {"stem": 2, "num_class_embeds": 3},
    ],
    ids=["two levels", "three levels", "two blocks a level", "classes"],
)
@pytest.mark.parametrize("size", [(32, 16), (19, 26)], ids=str)
def test_blocks_are_called_as_monai_calls_them(options, size):
    network = denoiser(**options)
    stem = network.stem
    reference = DiffusionModelUNet(
        spatial_dims=2,
        in_channels=network.unet.in_channels,
        out_channels=stem**2,
        attention_levels=(False,) * len(network.feature_channels),
        **{"num_res_blocks": 1} | SMALL | {k: v for k, v in options.items() if k != "stem"},
    ).eval()
    reference.load_state_dict(network.unet.state_dict())
    x, timesteps = batch(size)
    labels = torch.tensor([2, 0, 1]) if "num_class_embeds" in options else None

    height, width = size
    padded = F.pad(x, (0, -width % network.divisor, 0, -height % network.divisor))
    h = read(network, padded, timesteps)
    patches = reference(h, timesteps, class_labels=labels)
    expected = F.pixel_shuffle(patches, stem)[..., :height, :width]
    prediction = network(x, timesteps, class_labels=labels)
    assert prediction.std() > 0.05
    torch.testing.assert_close(prediction, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(network.unet(h, timesteps, class_labels=labels), patches)


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
    torch.testing.assert_close(
        F.pixel_shuffle(detail, stem) / network.slice_stem.detail_gain + base, x[:, 1:]
    )


def test_a_slice_is_predicted_alike_alone_and_in_any_batch():
    network = denoiser(stem=2)
    x, timesteps = batch((13, 10), count=4)
    together = network(x, timesteps)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(network(x[order], timesteps[order]), together[order], rtol=1e-4, atol=1e-5)
    for index in range(4):
        alone = network(x[index : index + 1], timesteps[index : index + 1])
        torch.testing.assert_close(alone[0], together[index], rtol=1e-4, atol=1e-5)


def test_one_timestep_serves_a_whole_batch_as_monai_samples():
    network = denoiser(stem=2)
    x, _ = batch()
    expected = network(x, torch.full((3,), 500))
    torch.testing.assert_close(network(x, torch.tensor([500.0])), expected, rtol=1e-5, atol=1e-6)


def test_diffusion_inferer_of_monai_drives_it():
    network, scheduler = denoiser(stem=2), TrailingDDIMScheduler()
    x, timesteps = batch()
    noise = torch.randn(3, 1, 16, 16)
    prediction = DiffusionInferer(scheduler)(
        x[:, :1], network, noise, timesteps, condition=x[:, 1:], mode="concat"
    )
    x_t = scheduler.add_noise(x[:, :1], noise, timesteps)
    assert torch.equal(prediction, network(torch.cat([x_t, x[:, 1:]], dim=1), timesteps))


@pytest.mark.parametrize("labels", [None, [0, 2]], ids=["plain", "classes"])
def test_scripted_network_gives_the_same_output_for_sizes_it_never_saw(labels):
    network = denoiser(stem=2, num_class_embeds=None if labels is None else 3)
    scripted = torch.jit.script(network)
    for size in ((16, 16), (13, 10)):
        x, timesteps = batch(size, count=2)
        arguments = (x, timesteps, None, None if labels is None else torch.tensor(labels))
        torch.testing.assert_close(scripted(*arguments), network(*arguments), rtol=1e-5, atol=1e-6)


def test_class_labels_choose_the_embedding():
    network = denoiser(stem=2, num_class_embeds=3)
    x, timesteps = batch(count=1)
    outputs = [network(x, timesteps, class_labels=torch.tensor([label])) for label in range(3)]
    assert all((outputs[a] - outputs[b]).abs().max() > 1e-2 for a, b in ((0, 1), (0, 2), (1, 2)))
    with pytest.raises(ValueError, match="class_labels are needed"):
        network(x, timesteps)


def test_weights_keep_the_names_of_monai():
    network = denoiser(stem=2)
    reference = DiffusionModelUNet(
        2, network.unet.in_channels, 4, num_res_blocks=1, attention_levels=(False, False), **SMALL
    )
    assert list(network.state_dict()) == [f"unet.{name}" for name in reference.state_dict()]


def test_every_weight_is_trained():
    network = denoiser(stem=2)
    network(*batch()).square().mean().backward()
    unused = [name for name, weight in network.named_parameters() if weight.grad is None]
    assert unused == []


PRIOR = {"num_class_embeds": 2, "prior_scale": 0.3}


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
        expected, expected_maps = network.predict_with_features(x, timesteps.expand(8), groups.expand(8))
        run = torch.jit.script(Runs(network)) if scripted else network.predict_runs
        predictions, maps = run(runs, around, timesteps, groups)
    assert [tuple(each.shape) for each in predictions] == [(size, 1, 13, 10) for size in sizes]
    torch.testing.assert_close(torch.cat(list(predictions)), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(list(maps), expected_maps, rtol=1e-4, atol=1e-5)


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

"""The 2D expert: MONAI's U-Net behind a stem, block for block, for any slice size, and scriptable."""

import pytest
import torch
import torch.nn.functional as F
from monai.inferers import DiffusionInferer
from monai.networks.nets import DiffusionModelUNet
from small_denoiser import SMALL, batch, denoiser, read

from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler


@pytest.mark.parametrize("stem", [2, 4])
@pytest.mark.parametrize("size", [(16, 16), (13, 21), (1, 40), (7, 3)], ids=str)
def test_any_slice_size(stem, size):
    network = denoiser(stem=stem)
    x, timesteps = batch(size)
    prediction = network(x, timesteps)
    assert prediction.shape == (3, 1, *size) and prediction.std() > 0


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
        attention_levels=(False,) * len(network.unet.block_out_channels),
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

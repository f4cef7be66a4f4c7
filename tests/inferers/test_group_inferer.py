"""Stage 1 of several targets: what the one network is given for each slice."""

import pytest
import torch

from monai_diffens.engines.plane_training import GroupDiffusionInferer, ResidualVelocityPrepareBatch
from monai_diffens.networks.plane_denoiser import PlaneDenoiser
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler
from monai_diffens.target import ResidualTarget


def batch() -> dict[str, torch.Tensor]:
    image = torch.rand(4, 5, 16, 16) + 0.1
    image[..., :4] = 0
    return {"image": image, "label": torch.rand(4, 1, 16, 16), "group": torch.tensor([0, 2, 2, 1])}


def test_target_is_centred_on_the_brain_and_groups_reach_the_network():
    scheduler, data = TrailingDDIMScheduler(), batch()
    prepare = ResidualVelocityPrepareBatch(scheduler, target=ResidualTarget("brain", 0.3))
    residual, target, _, keywords = prepare(data)
    brain = data["image"][:, 2:3] > 0
    torch.testing.assert_close(residual, (data["label"] - brain.float()) / 0.3)
    torch.testing.assert_close(
        ResidualTarget("brain", 0.3).from_residual(residual, brain.float()), data["label"]
    )
    velocity = scheduler.get_velocity(residual, keywords["noise"], keywords["timesteps"])
    torch.testing.assert_close(target, velocity)
    assert torch.equal(keywords["class_labels"], data["group"])

    seen = []

    def network(x, timesteps, context, class_labels):
        seen.append((x, timesteps, class_labels))
        return x[:, :1]

    result = GroupDiffusionInferer(scheduler)(residual, network, **keywords)
    x, timesteps, labels = seen[0]
    noisy = scheduler.add_noise(residual, keywords["noise"], keywords["timesteps"])
    assert torch.equal(x, torch.cat([noisy, data["image"]], dim=1)) and torch.equal(result, noisy)
    assert torch.equal(labels, data["group"]) and torch.equal(timesteps, keywords["timesteps"])


def test_one_group_has_no_labels():
    data = batch()
    del data["group"]
    *_, keywords = ResidualVelocityPrepareBatch(TrailingDDIMScheduler())(data)
    assert "class_labels" not in keywords


def test_groups_are_told_apart_once_trained():
    network = PlaneDenoiser(
        channels=(8, 16), norm_num_groups=4, num_head_channels=8, stem=2, num_class_embeds=3
    )
    with torch.no_grad():
        for parameter in network.parameters():  # the last layers start at zero
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
        x, t = torch.randn(1, 6, 16, 16).expand(2, -1, -1, -1), torch.tensor([500, 500])
        one, other = network(x, t, None, torch.tensor([0, 2]))
    assert (one - other).abs().max() > 1e-3
    with pytest.raises(ValueError, match="class_labels are needed"):
        network(x, t)


def test_residual_round_trip():
    target, base = torch.rand(2, 1, 3, 4, 5), torch.rand(2, 1, 3, 4, 5)
    torch.testing.assert_close(
        ResidualTarget(scale=0.3).from_residual(ResidualTarget(scale=0.3).to_residual(target, base), base),
        target,
    )

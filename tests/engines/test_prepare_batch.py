"""What the network is fed in training, through MONAI's inferer, and the target that belongs to it."""

import pytest
import torch
from monai.inferers import DiffusionInferer

from monai_diffens.engines.plane_training import ResidualVelocityPrepareBatch
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler
from monai_diffens.target import ResidualTarget

SCHEDULER = TrailingDDIMScheduler()


def batch(size: int = 6, channels: int = 5) -> dict[str, torch.Tensor]:
    """Slices with their 2.5D conditions."""
    return {"image": torch.rand(size, channels, 8, 8), "label": torch.rand(size, 1, 8, 8)}


def seen_by_network(inputs: torch.Tensor, options: dict) -> dict[str, torch.Tensor]:
    """Return what MONAI's inferer calls the network with."""
    seen: dict[str, torch.Tensor] = {}

    def network(x: torch.Tensor, timesteps: torch.Tensor, context=None) -> torch.Tensor:
        assert context is None
        seen.update(x=x, timesteps=timesteps)
        return x[:, :1]

    DiffusionInferer(SCHEDULER)(inputs, network, **options)
    return seen


@pytest.mark.parametrize(("scale", "centre"), [(0.07, 2), (1.0, 0), (0.5, 4)])
def test_network_input_and_target_imply_the_residual(scale, centre):
    data = batch()
    prepare = ResidualVelocityPrepareBatch(
        SCHEDULER, target=ResidualTarget(scale=scale), centre_channel=centre
    )
    inputs, target, arguments, options = prepare(data)
    seen = seen_by_network(inputs, options)
    assert arguments == ()
    residual = (data["label"] - data["image"][:, centre : centre + 1]) / scale
    torch.testing.assert_close(inputs, residual)

    x_t, alpha_cumprod = seen["x"][:, :1], SCHEDULER.alphas_cumprod[seen["timesteps"]].reshape(-1, 1, 1, 1)
    alpha, sigma = alpha_cumprod.sqrt(), (1 - alpha_cumprod).sqrt()
    torch.testing.assert_close(alpha * x_t - sigma * target, residual, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sigma * x_t + alpha * target, options["noise"], rtol=1e-5, atol=1e-5)
    assert torch.equal(seen["x"][:, 1:], data["image"])  # the conditions, unscaled, behind x_t


def test_label_is_condition_plus_scaled_residual():
    data = batch()
    inputs, *_ = ResidualVelocityPrepareBatch(SCHEDULER)(data)
    torch.testing.assert_close(data["image"][:, 2:3] + 0.07 * inputs, data["label"], rtol=0, atol=1e-6)


def test_noise_is_standard_normal_and_new_every_time():
    prepare = ResidualVelocityPrepareBatch(SCHEDULER)
    data = batch(64)
    first, second = (prepare(data)[3]["noise"] for _ in range(2))
    assert not torch.equal(first, second)
    assert abs(float(first.mean())) < 0.05 and float(first.std()) == pytest.approx(1, abs=0.05)
    assert first.shape == (64, 1, 8, 8)


def test_seed_repeats_the_draw():
    prepare, data = ResidualVelocityPrepareBatch(SCHEDULER), batch()
    draws = []
    for _ in range(2):
        torch.manual_seed(4)
        draws.append(prepare(data)[3])
    assert torch.equal(draws[0]["noise"], draws[1]["noise"])
    assert torch.equal(draws[0]["timesteps"], draws[1]["timesteps"])


def test_batch_moves_to_the_device_asked_for():
    prepare = ResidualVelocityPrepareBatch(TrailingDDIMScheduler())  # MONAI's schedulers move for good
    inputs, target, _, options = prepare(batch(), device="meta")
    tensors = (inputs, target, options["noise"], options["condition"], options["timesteps"])
    assert {tensor.device.type for tensor in tensors} == {"meta"}


@pytest.mark.parametrize("emphasis", [1.0, 2.0])
@pytest.mark.parametrize("batch_size", [1, 5, 16, 300])
def test_timesteps_are_stratified(emphasis, batch_size):
    prepare = ResidualVelocityPrepareBatch(SCHEDULER, noise_emphasis=emphasis)
    edges = 1000 * (1 - (1 - torch.arange(batch_size + 1) / batch_size) ** emphasis)
    for _ in range(20):
        timesteps = prepare.stratified_timesteps(batch_size)
        assert timesteps.dtype == torch.int64 and timesteps.shape == (batch_size,)
        assert timesteps.min() >= 0 and timesteps.max() <= 999
        assert (timesteps >= edges[:-1].floor() - 1e-3).all() and (timesteps <= edges[1:] + 1e-3).all()


@pytest.mark.parametrize(("emphasis", "mean"), [(1.0, 1 / 2), (2.0, 2 / 3), (3.0, 3 / 4)])
def test_emphasis_moves_timesteps_towards_noise(emphasis, mean):
    prepare = ResidualVelocityPrepareBatch(SCHEDULER, noise_emphasis=emphasis)
    timesteps = prepare.stratified_timesteps(2000)
    assert float(timesteps.float().mean()) == pytest.approx(1000 * mean, abs=2)
    assert timesteps.min() < 3 and timesteps.max() > 990  # the whole schedule all the same

"""The whole network: every fusion from one set of weights, under MONAI's own inferer and schedulers."""

import re

import pytest
import torch
from denoisers import predict, sample
from monai.inferers import DiffusionInferer
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler

from monai_diffens.acquisition.slicing import PLANES
from monai_diffens.networks.diff_ensembler import FUSIONS, DiffEnsembler

SIZE = (9, 14, 11)
MODES = (*FUSIONS, *PLANES)
OPTIONS = {"schedule": "cosine", "prediction_type": "v_prediction", "clip_sample": False}
SCHEDULERS = {"ddim": DDIMScheduler, "ddpm": DDPMScheduler}


def batch(conditions: int = 1, count: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    timesteps = torch.tensor([30, 870])[:count]
    return torch.randn(count, 1, *SIZE), torch.rand(count, conditions, *SIZE), timesteps


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("fusion", MODES)
@pytest.mark.parametrize("count", [1, 2])
def test_inferer_of_monai_samples_from_it(tiny_ensembler, name, fusion, count):
    network, scheduler = tiny_ensembler(fusion=fusion), SCHEDULERS[name](1000, **OPTIONS)
    noise, conditions, _ = batch(count=count)
    scheduler.set_timesteps(3)
    torch.manual_seed(5)
    result = DiffusionInferer(scheduler).sample(
        noise, network, scheduler, conditioning=conditions, mode="concat", verbose=False
    )
    torch.manual_seed(5)  # MONAI's inferer hands no generator to its schedulers
    with torch.no_grad():
        ours = sample(
            lambda x_t, t, step: network(torch.cat([x_t, conditions], dim=1), torch.full((count,), t)),
            noise,
            scheduler,
        )
    assert result.shape == noise.shape and (result - noise).abs().max() > 0.1
    torch.testing.assert_close(result, ours, rtol=0, atol=1e-5)


def test_inferer_of_monai_trains_it(tiny_ensembler):
    network, scheduler = tiny_ensembler(), DDPMScheduler(1000, **OPTIONS)
    residual, conditions, timesteps = batch()
    noise = torch.randn_like(residual)
    prediction = DiffusionInferer(scheduler)(
        residual, network, noise, timesteps, condition=conditions, mode="concat"
    )
    x_t = scheduler.add_noise(residual, noise, timesteps)
    torch.testing.assert_close(prediction, predict(network, x_t, conditions, timesteps).prediction)
    prediction.square().mean().backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []


def test_modes_are_what_they_say(tiny_ensembler):
    network = tiny_ensembler()
    x_t, conditions, timesteps = batch()
    with torch.no_grad():
        experts = network.bank(x_t, conditions, timesteps)
    for e, plane in enumerate(PLANES):
        alone = predict(network, x_t, conditions, timesteps, plane)
        torch.testing.assert_close(alone.prediction[:, 0], experts[:, e])
        assert alone.weights.flatten(1).tolist() == [[float(i == e) for i in range(3)]] * 2
    mean = predict(network, x_t, conditions, timesteps, "mean")
    torch.testing.assert_close(mean.prediction[:, 0], experts.mean(dim=1))

    fused = predict(network, x_t, conditions, timesteps, "calibrated")
    assert fused.weights.shape == (2, 3, *SIZE)
    weights, bias = network.calibrator(
        x_t, conditions, experts, timesteps, torch.ones(2, 3, dtype=torch.bool)
    )
    torch.testing.assert_close(fused.weights, weights)
    torch.testing.assert_close(fused.prediction, (weights * experts).sum(dim=1, keepdim=True) + bias)
    assert (fused.prediction - mean.prediction).abs().max() > 1e-3


def test_calibrated_starts_as_the_mean(tiny_ensembler):
    network = tiny_ensembler(untrained=True)
    arguments = batch()
    fused, mean = (predict(network, *arguments, mode).prediction for mode in ("calibrated", "mean"))
    torch.testing.assert_close(fused, mean, rtol=0, atol=1e-6)
    assert mean.std() > 0.05


@pytest.mark.parametrize("conditions", [("image",), ("flair", "t1ce")], ids=len)
def test_alternate_runs_one_plane_a_step_in_turn(tiny_ensembler, conditions, monkeypatch):
    network, run = tiny_ensembler(conditions=conditions), []
    for plane, expert in zip(PLANES, network.bank.experts, strict=True):

        def counted(*arguments, original=expert.predict_runs, plane=plane):
            run.append(plane)
            return original(*arguments)

        monkeypatch.setattr(expert, "predict_runs", counted)
    network.bank.slice_chunk = 10**6
    arguments = batch(len(conditions))
    steps = [predict(network, *arguments, "alternate", step) for step in range(5)]
    assert run == [plane for plane in (*PLANES, *PLANES[:2]) for _ in conditions]
    for plane, fused in zip(PLANES, steps, strict=False):
        torch.testing.assert_close(fused, predict(network, *arguments, plane))


@pytest.mark.parametrize("mode", MODES)
def test_forward_uses_the_fusion_it_was_built_with(tiny_ensembler, mode):
    network = tiny_ensembler(fusion=mode)
    x_t, conditions, timesteps = batch()
    x = torch.cat([x_t, conditions], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(
            network(x, timesteps), predict(network, x_t, conditions, timesteps, mode)[0]
        )
        torch.testing.assert_close(network(x), network(x, torch.zeros(2)))
        torch.testing.assert_close(network(x, timesteps[:1]), network(x, timesteps[:1].expand(2)))


@pytest.mark.parametrize("fusion", ["average", "axial/image", "", "Mean"])
def test_unknown_fusion_names_the_choices(tiny_ensembler, fusion):
    choices = f"unknown fusion '{fusion}': use one of calibrated, mean, alternate, axial, coronal, sagittal"
    with pytest.raises(ValueError, match=f"^{re.escape(choices)}$"):
        tiny_ensembler(fusion=fusion)


def test_several_conditions(tiny_ensembler):
    network = tiny_ensembler(conditions=("flair", "t1ce"), planes=("axial", "coronal"))
    assert network.expert_names == ["axial/flair", "axial/t1ce", "coronal/flair", "coronal/t1ce"]
    x_t, conditions, timesteps = batch(2)
    fused = predict(network, x_t, conditions, timesteps)
    assert fused.weights.shape == (2, 4, *SIZE)
    torch.testing.assert_close(fused.weights.sum(dim=1), torch.ones(2, *SIZE), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="alternate, axial, coronal, flair, t1ce, axial/flair, axial/t1ce"):
        network.check_fusion("sagittal")


def test_a_case_is_predicted_alike_alone_and_in_a_batch(tiny_ensembler):
    network, arguments = tiny_ensembler(), batch()
    together = predict(network, *arguments)
    for i in range(2):
        alone = predict(network, *(value[i : i + 1] for value in arguments))
        torch.testing.assert_close(alone.prediction[0], together.prediction[i], rtol=0, atol=1e-5)


def test_scripted_network_gives_the_same_output(tiny_ensembler):
    network = tiny_ensembler(calibrator_channels=(8, 12, 16), channels=(8, 16, 16))
    scripted = torch.jit.script(network)
    x_t, conditions, timesteps = batch()
    for x in (torch.cat([x_t, conditions], dim=1), torch.rand(1, 2, 8, 5, 16)):
        with torch.no_grad():
            expected, output = network(x, timesteps[: len(x)]), scripted(x, timesteps[: len(x)])
        torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)


def test_a_mistyped_option_is_an_error():
    with pytest.raises(TypeError, match="slice_chunks"):
        DiffEnsembler(slice_chunks=4)

"""The exported sampler computes what the inferer does, compiled, without this package."""

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SimpleInferer
from monai.networks.schedulers import DDPMScheduler

from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from monai_diffens.inferers.scripted_sampler import ScriptedSampler, sampling_plan
from monai_diffens.schedulers.dpm_solver import DPMSolverPlusPlusScheduler
from monai_diffens.schedulers.trailing_ddim import TrailingDDIMScheduler
from monai_diffens.transforms.thick_slices import measurement_for, record_sampling

SHAPE = (20, 22, 30)


@pytest.fixture
def scan() -> torch.Tensor:
    """Two cases with air around them, at different places."""
    volume = torch.zeros(2, 1, *SHAPE)
    volume[0, :, 9:18, 5:20, 2:27] = torch.rand(1, 9, 15, 25) + 0.1
    volume[1, :, 2:6, 10:15, 12:16] = torch.rand(1, 4, 5, 4) + 0.1
    return volume


def settings(**changes) -> DiffEnsemblerInferer:
    options = {"scheduler": TrailingDDIMScheduler(), "amp": False, "progress": False, "residual_scale": 0.5}
    return DiffEnsemblerInferer(**(options | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_steps": 3, "num_samples": 2, "seed": 7},
        {"num_steps": 4, "restart": None, "fusion": "alternate"},
        {"num_steps": 4, "scheduler": DPMSolverPlusPlusScheduler(), "restart": None},
        {"num_steps": 2, "fusion": "coronal", "margin": 1},
        {"residual_gain": 1.7, "non_negative": True},
    ],
    ids=str,
)
def test_plain_python_and_module_agree(tiny_ensembler, scan, changes):
    network, inferer = tiny_ensembler(), settings(**changes)
    expected = inferer(scan, network)
    assert (expected - scan).abs().max() > 0.05  # the network does something
    torch.testing.assert_close(ScriptedSampler(network, inferer)(scan), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("factors", "profile"), [((1, 1, 5), "box"), ((2.5, 1, 3), "gaussian")])
def test_consistency_agrees(tiny_ensembler, scan, factors, profile):
    network, inferer = tiny_ensembler(), settings(num_steps=3)
    measurement = measurement_for(SHAPE, factors, profile)
    known = MetaTensor(scan[:1].clone())
    record_sampling(known, measurement)
    expected = inferer(known, network).as_tensor()
    result = ScriptedSampler(network, inferer, factors, profile)(scan[:1])
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(measurement(result), measurement(scan[:1]), atol=1e-4, rtol=0)


TRANSLATION = {
    "base": "brain",
    "measured_channel": 1,
    "condition_weights": {"T2w": 2.0},
    "plane_weights": {"coronal": 0.0},
    "num_steps": 2,
    "project_experts": True,
    "non_negative": True,
}


@pytest.mark.parametrize("measured", [True, False])
def test_translation_agrees(tiny_ensembler, scan, measured):
    network, inferer = tiny_ensembler(conditions=("T2w", "FLAIR")), settings(**TRANSLATION)
    conditions = torch.cat([scan[:1], 0.7 * scan[:1].flip(2) if measured else 0 * scan[:1]], dim=1)
    known = MetaTensor(conditions.clone())
    if measured:
        record_sampling(known, measurement_for(SHAPE, (1, 1, 5)))
    expected = inferer(known, network).as_tensor()
    sampler = torch.jit.script(ScriptedSampler(network, inferer, (1, 1, 5)).eval())
    torch.testing.assert_close(sampler(conditions), expected, atol=2e-5, rtol=1e-4)


def test_compiled_saved_and_loaded_it_takes_any_size(tiny_ensembler, scan, tmp_path):
    network, inferer = tiny_ensembler(), settings(num_steps=2)
    torch.jit.script(ScriptedSampler(network, inferer, (1, 1, 5)).eval()).save(tmp_path / "model.ts")
    loaded = torch.jit.load(tmp_path / "model.ts")
    for volume in (scan, scan[:1, :, :17, 2:21, :25]):
        expected = ScriptedSampler(network, inferer, (1, 1, 5))(volume)
        torch.testing.assert_close(SimpleInferer()(volume, loaded), expected, atol=2e-5, rtol=1e-4)


def test_air_alone_is_left_as_it_is(tiny_ensembler):
    empty = torch.zeros(1, 1, 8, 8, 8)
    assert torch.equal(ScriptedSampler(tiny_ensembler(), settings())(empty), empty)


def test_plan_of_one_step_is_the_first_clean_sample():
    times, rows = sampling_plan(TrailingDDIMScheduler(), 1, None)
    assert times == [999]
    torch.testing.assert_close(torch.tensor(rows), torch.eye(2))


@pytest.mark.parametrize("scheduler", [DDPMScheduler(num_train_timesteps=10, prediction_type="v_prediction")])
def test_schedulers_that_draw_noise_are_refused(tiny_ensembler, scheduler):
    with pytest.raises(ValueError, match="linear and draws no noise"):
        ScriptedSampler(tiny_ensembler(), settings(scheduler=scheduler, num_steps=10, restart=None))


@pytest.mark.parametrize(("factors", "profile"), [((0.5, 1, 1), "box"), ((1, 1, 5), "triangle")])
def test_settings_that_make_no_sense(tiny_ensembler, factors, profile):
    with pytest.raises(ValueError, match=r"factors are 1 or more|unknown slice profile"):
        ScriptedSampler(tiny_ensembler(), settings(), factors, profile)

"""The inferer: what a user is promised of seed, consistency and region, whatever the network says."""

import pytest
import torch
from monai.data import MetaTensor

from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from monai_diffens.networks.diff_ensembler import FusedPrediction
from monai_diffens.schedulers.prediction import from_clean
from monai_diffens.schedulers.trailing_ddim import TrailingDDIMScheduler
from monai_diffens.transforms.thick_slices import measurement_for, thick_slice

SHAPE = (20, 24, 30)
SCALE = 0.07


def brain(seed: int = 0) -> torch.Tensor:
    volume = torch.zeros(1, *SHAPE)
    inside = torch.rand(1, 10, 12, 15, generator=torch.Generator().manual_seed(seed)) + 0.5
    volume[:, 5:15, 6:18, 5:20] = inside
    return volume


def scan(truth: torch.Tensor, case: str = "a") -> MetaTensor:
    return thick_slice(MetaTensor(truth, meta={"case": case}), (1, 1, 5))[None]


class Oracle:
    """A network that knows the residual of the region it is shown, and counts its passes."""

    def __init__(self, scheduler, residual=None):
        self.scheduler, self.residual, self.passes = scheduler, residual, 0

    def check_fusion(self, fusion):
        pass

    def predict(self, x_t, conditions, timesteps, fusion, step):
        self.passes += 1
        alpha_cumprod = float(self.scheduler.alphas_cumprod[int(timesteps[0])])
        clean = x_t * 0.3 if self.residual is None else self.residual
        prediction = from_clean(clean, x_t, alpha_cumprod, "v_prediction")
        return FusedPrediction(prediction, torch.ones(1), torch.zeros(1))


def build(**options):
    scheduler = TrailingDDIMScheduler()
    return DiffEnsemblerInferer(scheduler, progress=False, amp=False, **options), scheduler


@pytest.mark.parametrize(("num_steps", "restart"), [(1, None), (2, 0.5), (4, 0.5), (4, 0.3), (10, None)])
def test_a_network_that_knows_the_truth_gives_the_truth(num_steps, restart):
    truth = brain()
    inputs = scan(truth)
    inferer, scheduler = build(num_steps=num_steps, restart=restart)
    region = inferer.foreground(inputs.as_tensor())
    residual = ((truth[None] - inputs.as_tensor()) / SCALE)[(..., *region)]
    oracle = Oracle(scheduler, residual)
    result = inferer(inputs, oracle)
    inside = (..., *region)
    torch.testing.assert_close(result.as_tensor()[inside], truth[None][inside], rtol=0, atol=2e-3)
    assert oracle.passes == num_steps


@pytest.mark.parametrize(("num_steps", "restart"), [(1, None), (4, 0.5), (3, None)])
def test_the_result_sliced_thick_again_is_the_scan(num_steps, restart):
    truth = brain()
    inferer, scheduler = build(num_steps=num_steps, restart=restart)
    result = inferer(scan(truth), Oracle(scheduler)).as_tensor()
    measurement = measurement_for(SHAPE, (1, 1, 5))
    assert (result[0] - truth).abs().max() > 0.01  # the noise did reach the result
    torch.testing.assert_close(measurement(result[0]), measurement(truth), rtol=0, atol=1e-4)


def test_seed_and_case_alone_decide_the_noise():
    first, second = scan(brain(0), "a"), scan(brain(1), "b")

    def run(inputs, seed=0):
        inferer, scheduler = build(num_steps=2, restart=None, seed=seed)
        return inferer(inputs, Oracle(scheduler)).as_tensor()

    alone = run(first)
    run(second)  # another case in between changes nothing
    torch.testing.assert_close(run(first), alone, rtol=0, atol=0)
    assert (run(first, seed=1) - alone).abs().max() > 0.01
    renamed = scan(brain(0), "c")
    assert (run(renamed) - alone).abs().max() > 0.01


def test_outside_the_region_the_condition_stays():
    inputs = scan(brain())
    inferer, scheduler = build(num_steps=1, restart=None, margin=1)
    region = inferer.foreground(inputs.as_tensor())
    result = inferer(inputs, Oracle(scheduler)).as_tensor().clone()
    expected = inputs.as_tensor().clone()
    result[(..., *region)] = expected[(..., *region)] = 0
    assert torch.equal(result, expected)


def test_mean_of_samples_varies_less():
    inputs = scan(brain())

    def deviation(num_samples):
        inferer, scheduler = build(num_steps=2, restart=None, num_samples=num_samples)
        return (inferer(inputs, Oracle(scheduler)).as_tensor() - inputs.as_tensor()).std()

    assert deviation(8) < 0.6 * deviation(1)


@pytest.mark.parametrize("options", [{"num_steps": 0}, {"num_samples": 0}, {"amp": "yes"}])
def test_arguments_out_of_range_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        DiffEnsemblerInferer(TrailingDDIMScheduler(), **options)


def test_auto_precision_follows_the_processor(monkeypatch):
    inferer = DiffEnsemblerInferer(TrailingDDIMScheduler())
    for has in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=has: has)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert inferer.use_amp("cpu") is has

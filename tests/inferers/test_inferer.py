"""Conditions in, volume out: exact with a network that knows, reproducible, and true to the scan."""

import pytest
import torch
from monai.data import MetaTensor
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler, PNDMScheduler
from oracle import SCALE, SIZE, Oracle, collate, head, infer, knows_the_truth, repeats_the_noise

from monai_diffens.acquisition.slicing import PATCH_GRID
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler
from monai_diffens.transforms.thick_slices import measurement_from_meta, thick_slice

FACTORS = [(1, 1, 4), (2.5, 1, 1), (4, 4, 4)]


@pytest.mark.parametrize("restart", [None, 0.5])
@pytest.mark.parametrize("num_steps", [1, 4])
@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_a_network_that_knows_the_truth_returns_it(kind, num_steps, restart):
    scheduler = TrailingDDIMScheduler(prediction_type=kind)
    truth = torch.rand(2, 1, *SIZE)
    condition = truth + 0.1 * torch.randn_like(truth)
    network = Oracle(scheduler, knows_the_truth)
    result = infer(scheduler, num_steps=num_steps, restart=restart)(
        torch.cat([condition, truth], dim=1), network
    )
    torch.testing.assert_close(result, truth, rtol=0, atol=1e-4)
    assert len(network.calls) == 2 * num_steps
    assert [step for _, _, step, _ in network.calls] == list(range(num_steps)) * 2


@pytest.mark.parametrize("factors", FACTORS, ids=str)
def test_the_truth_of_a_thick_sliced_scan_survives_consistency(factors):
    """Its residual lies where the scan cannot see, so that consistency takes nothing away."""
    scheduler = TrailingDDIMScheduler()
    truth = MetaTensor(torch.rand(1, *SIZE))
    condition = thick_slice(truth, factors)
    inputs = MetaTensor(torch.cat([condition, truth])[None], meta=dict(condition.meta))
    result = infer(scheduler)(inputs, Oracle(scheduler, knows_the_truth))
    assert (condition - truth).abs().max() > 0.1
    torch.testing.assert_close(result[0].as_tensor(), truth.as_tensor(), rtol=0, atol=2e-3)


SCHEDULERS = {
    "trailing": (TrailingDDIMScheduler(), 3),
    "ddim that clips": (DDIMScheduler(1000, schedule="cosine", prediction_type="v_prediction"), 4),
    "ddpm": (DDPMScheduler(1000, schedule="cosine", prediction_type="v_prediction", clip_sample=False), 4),
    "pndm": (PNDMScheduler(1000, schedule="scaled_linear_beta", skip_prk_steps=True), 5),
}


# the projection is one for all schedulers: each is tried on one way of slicing, and one on all
EACH = [("trailing", FACTORS[0]), ("trailing", FACTORS[1]), *zip(SCHEDULERS, FACTORS[::-1] * 2, strict=False)]


@pytest.mark.parametrize(("name", "factors"), EACH, ids=str)
def test_the_result_sliced_again_is_the_scan_under_every_scheduler(tiny_ensembler, name, factors):
    scheduler, num_steps = SCHEDULERS[name]
    network, inputs = tiny_ensembler(), collate(head("a", factors))
    measurement = measurement_from_meta(SIZE, inputs[0].meta)
    scan = measurement(inputs[0].as_tensor())
    for restart in (None, 0.5):
        result = infer(scheduler, num_steps=num_steps, restart=restart)(inputs, network)[0].as_tensor()
        assert (result - inputs[0].as_tensor()).std() > 1e-3
        torch.testing.assert_close(measurement(result), scan, rtol=0, atol=1e-3)
    free = infer(scheduler, num_steps=num_steps, with_scan=False)(inputs, network)[0].as_tensor()
    assert (measurement(free) - scan).abs().max() > 1e-2


def test_without_a_record_there_is_nothing_to_agree_with(tiny_ensembler):
    network, scan = tiny_ensembler(), head("a")
    del scan.meta["slice_sampling"]
    results = [infer(with_scan=agree)(collate(scan), network) for agree in (True, False)]
    assert torch.equal(results[0].as_tensor(), results[1].as_tensor())


@pytest.mark.parametrize(
    ("scheduler", "slice_chunk"), [("trailing", 1), ("trailing", 7), ("trailing", None), ("ddpm", None)]
)
def test_a_case_has_one_result_whatever_runs_beside_it(tiny_ensembler, scheduler, slice_chunk):
    network, inferer = tiny_ensembler(), infer(SCHEDULERS[scheduler][0])
    a, b, c = head("a"), head("b", (4, 1, 1), 1), head("c", (3, 3, 3), 2)
    alone = inferer(collate(a), network).as_tensor()
    network.bank.slice_chunk = slice_chunk or 10**6
    for batch, place in (((a, b), 0), ((c, b, a), 2)):
        torch.manual_seed(place)
        result = inferer(collate(*batch), network).as_tensor()  # the inferer has run before
        torch.testing.assert_close(result[place], alone[0], rtol=0, atol=1e-5)
        others = [result[i] for i in range(len(batch)) if i != place]
        assert all((other - alone[0]).abs().max() > 1e-2 for other in others)


def test_seed_and_case_decide_the_noise(tiny_ensembler):
    network, scan = tiny_ensembler(), head("a")

    def restore(seed: int = 0, **meta) -> torch.Tensor:
        inputs = collate(MetaTensor(scan.as_tensor(), meta=dict(scan.meta) | meta))
        return infer(seed=seed)(inputs, network).as_tensor()

    first = restore()
    same = [
        {},
        {"filename_or_obj": "elsewhere/a.nii"},
        {"case": "a"},
        {"case": "a", "filename_or_obj": "b.nii"},
    ]
    for meta in same:
        assert torch.equal(restore(**meta), first), meta
    for seed, meta in ((1, {}), (0, {"filename_or_obj": "/scans/b.nii.gz"}), (0, {"case": "b"})):
        assert (restore(seed, **meta) - first).abs().max() > 1e-2, (seed, meta)


@pytest.mark.parametrize("margin", [0, 3, 50])
def test_what_lies_outside_the_foreground_is_left_alone(margin):
    scheduler = TrailingDDIMScheduler()
    inputs = torch.zeros(1, 2, *SIZE)
    inputs[0, 0, 6:11, 9:20, 2:25] = 0.5
    inputs[0, 1, 6:11, 8:20, 2:25] = 0.5  # the foreground is that of all conditions
    inputs[0, 0, 0, 0, 0] = 5e-4  # below what counts
    network = Oracle(scheduler, repeats_the_noise)
    result = infer(scheduler, margin=margin)(inputs, network)
    box = [
        slice(max(0, low - margin) // PATCH_GRID * PATCH_GRID, high + margin)
        for low, high in ((6, 11), (8, 20), (2, 25))
    ]
    inside = torch.zeros(SIZE, dtype=torch.bool)
    inside[tuple(box)] = True
    assert torch.equal(result[0, 0][~inside], inputs[0, 0][~inside])
    assert ((result - inputs[:, :1])[0, 0][inside] != 0).all()
    sides = inside.nonzero().amax(dim=0) - inside.nonzero().amin(dim=0) + 1
    assert {shape for shape, *_ in network.calls} == {(1, 1, *sides.tolist())}


def test_mean_of_several_samples_varies_less():
    scheduler = TrailingDDIMScheduler()
    inputs = torch.ones(1, 1, *SIZE)

    def spread(num_samples: int) -> float:
        network = Oracle(scheduler, repeats_the_noise)
        result = infer(scheduler, num_steps=1, num_samples=num_samples)(inputs, network)
        assert len(network.calls) == num_samples
        assert float(result.mean()) == pytest.approx(1, abs=0.01)
        return float((result - inputs).std() / SCALE)

    assert spread(1) == pytest.approx(1, rel=0.03)
    assert spread(4) == pytest.approx(0.5, rel=0.03)


def test_first_of_several_samples_is_the_single_one(tiny_ensembler):
    network, inputs = tiny_ensembler(), collate(head("a"))
    inferer = infer(num_samples=2)
    seeds = []
    seed_of = inferer.seed_of
    inferer.seed_of = lambda case, number: seeds.append(seed_of(case, number)) or seeds[-1]
    mean = inferer(inputs, network).as_tensor()
    assert len(set(seeds)) == 2
    first = infer()(inputs, network).as_tensor()
    single = infer()
    single.seed_of = lambda case, number: seeds[1]
    torch.testing.assert_close(mean, (first + single(inputs, network).as_tensor()) / 2, rtol=0, atol=1e-6)


@pytest.mark.parametrize("gain", [0.5, 1.5, 2.5])
def test_gain_scales_what_was_added_and_keeps_the_scan(gain):
    truth = torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(0)) + 1.0
    scan = thick_slice(MetaTensor(truth), (1, 1, 4))
    inputs = MetaTensor(torch.cat([scan, truth])[None], meta=dict(scan.meta))
    scheduler = TrailingDDIMScheduler()
    plain, scaled = (
        infer(scheduler, num_steps=1, residual_gain=value)(inputs, Oracle(scheduler, knows_the_truth))[0]
        for value in (1.0, gain)
    )
    torch.testing.assert_close(scaled - scan, gain * (plain - scan), atol=1e-4, rtol=0)
    measurement = measurement_from_meta(SIZE, scan.meta)
    torch.testing.assert_close(measurement(scaled.as_tensor()), measurement(truth), atol=2e-4, rtol=0)


def test_a_result_is_not_negative_and_agrees_better_than_one_cut_off(tiny_ensembler):
    inputs = collate(head("a"))
    measurement = measurement_from_meta(SIZE, inputs[0].meta)
    scan = measurement(inputs[0].as_tensor())
    plain, fitted = (
        infer(non_negative=wanted)(inputs, tiny_ensembler())[0].as_tensor() for wanted in (False, True)
    )
    assert plain.min() < -0.01 and fitted.min() >= 0
    lost = (measurement(plain.clamp(min=0)) - scan).abs().mean()
    assert (measurement(fitted) - scan).abs().mean() < 0.3 * lost

"""Spread and weight maps: what single runs give, in memory that does not grow with the samples."""

import weakref

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate

from monai_diffens.inferers.case_denoiser import foreground_box
from monai_diffens.inferers.inferer import DiffEnsemblerInferer, RunningMoments
from monai_diffens.inferers.settings import map_names
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler
from monai_diffens.transforms.thick_slices import measurement_from_meta, thick_slice

SHAPE = (16, 20, 24)
EXPERTS = ("axial", "coronal", "sagittal")


def infer(**options) -> DiffEnsemblerInferer:
    return DiffEnsemblerInferer.of(TrailingDDIMScheduler(), progress=False, amp=False, **options)


@pytest.fixture
def scan() -> MetaTensor:
    """A batch of one thick-sliced block on 0."""
    volume = torch.zeros(1, *SHAPE)
    volume[:, 4:12, 6:14, 6:18] = 0.3 + 0.5 * torch.rand(8, 8, 12)
    sliced = thick_slice(MetaTensor(volume, meta={"case": "a"}), (1, 1, 4))
    return list_data_collate([{"image": sliced}])["image"]


def foreground(scan: MetaTensor) -> torch.Tensor:
    inside = torch.zeros(SHAPE, dtype=torch.bool)
    inside[foreground_box(scan.as_tensor(), infer().run_time.margin)] = True
    return inside


@pytest.mark.parametrize("count", [2, 7])
def test_moments_of_a_stream_are_those_of_the_stack(count):
    # a spread that is small against the mean: the textbook sum of squares would lose it
    values = 1e3 + torch.randn(count, 3, 4)
    moments = RunningMoments()
    for value in values:
        reused = value.clone()
        moments.add(reused)
        reused.zero_()  # the caller may reuse its memory
    torch.testing.assert_close(moments.mean, values.mean(dim=0))
    torch.testing.assert_close(moments.std(), values.double().std(dim=0).float(), rtol=1e-3, atol=0)


def test_one_sample_has_no_spread():
    moments = RunningMoments()
    moments.add(torch.ones(2))
    with pytest.raises(ValueError, match="two samples or more, got 1"):
        moments.std()
    with pytest.raises(ValueError, match="num_samples of 2 or more, got 1"):
        infer(spread=True)
    with pytest.raises(ValueError, match="spread_scale must be above 0, got 0"):
        infer(spread_scale=0)


@pytest.mark.parametrize(
    ("spread", "experts", "names"),
    [
        (False, [], []),
        (True, [], ["std"]),
        (True, ["axial/T1w", "axial/FLAIR"], ["std", "weight-axial-T1w", "weight-axial-FLAIR"]),
    ],
)
def test_map_names(spread, experts, names):
    assert map_names(spread, experts) == names


def test_mean_and_spread_are_those_of_single_samples(tiny_ensembler, scan):
    network = tiny_ensembler()
    several = infer(num_steps=2, num_samples=3, spread=True, spread_scale=2.0)
    mean, spread = several(scan, network).as_tensor()[0]
    singles = []
    for number in range(3):
        single = infer(num_steps=2)
        seed = several.seed_of("a", number)
        single.seed_of = lambda case, _, seed=seed: seed
        singles.append(single(scan, network).as_tensor()[0, 0])
    stack = torch.stack(singles)
    torch.testing.assert_close(mean, stack.mean(dim=0), rtol=0, atol=1e-6)
    torch.testing.assert_close(spread, 2 * stack.std(dim=0), rtol=1e-4, atol=1e-6)
    inside = foreground(scan)
    assert (spread[inside] > 0).float().mean() > 0.9 and (spread[~inside] == 0).all()
    measurement = measurement_from_meta(SHAPE, scan[0].meta)
    torch.testing.assert_close(measurement(mean[None]), measurement(scan[0].as_tensor()), rtol=0, atol=1e-3)


def test_memory_is_flat_in_the_number_of_samples(tiny_ensembler, scan, monkeypatch):
    """No sample outlives its turn, and there is one set of weights for all."""
    samples: list[weakref.ref] = []
    weights = set()
    sample_residual = DiffEnsemblerInferer.sample_residual

    def watched(self, *args):
        assert all(sample() is None for sample in samples)
        result = sample_residual(self, *args)
        samples.append(weakref.ref(result))
        weights.add(args[-1].weights.data_ptr())
        return result

    monkeypatch.setattr(DiffEnsemblerInferer, "sample_residual", watched)
    infer(num_samples=4, spread=True, weights=True)(scan, tiny_ensembler())
    assert len(samples) == 4 and len(weights) == 1


@pytest.mark.parametrize(
    ("fusion", "shares"),
    [("mean", (1 / 3, 1 / 3, 1 / 3)), ("alternate", (0.5, 0.25, 0.25)), ("coronal", (0, 1, 0))],
)
def test_weights_tell_who_decided(tiny_ensembler, scan, fusion, shares):
    channels = infer(num_steps=4, fusion=fusion, weights=True)(scan, tiny_ensembler()).as_tensor()[0]
    inside = foreground(scan)
    for weight, share in zip(channels[1:], shares, strict=True):
        np.testing.assert_allclose(weight[inside], share, atol=1e-6)
        assert (weight[~inside] == 0).all()


def test_calibrated_weights_are_the_mean_over_the_passes_and_sum_to_1(tiny_ensembler, scan, monkeypatch):
    network, seen = tiny_ensembler(), []
    fuse = network.fuse

    def watched(*args):
        fused = fuse(*args)
        seen.append(fused.weights)
        return fused

    monkeypatch.setattr(network, "fuse", watched)
    options = {"num_steps": 2, "num_samples": 2}
    result = infer(spread=True, weights=True, **options)(scan, network).as_tensor()[0]
    assert len(map_names(True, network.expert_names)) + 1 == len(result) and len(seen) == 4
    inside, weights = foreground(scan), result[2:]
    torch.testing.assert_close(weights[:, inside], torch.stack(seen).mean(dim=0)[0].flatten(1))
    torch.testing.assert_close(weights.sum(dim=0), inside.float(), rtol=0, atol=1e-5)
    assert weights[0, inside].std() > 1e-4
    plain = infer(**options)(scan, network).as_tensor()[0]
    torch.testing.assert_close(plain, result[:1], rtol=0, atol=0)

"""What the inferer is told: fusion, precision, bad arguments; and who drives it."""

import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import Lambdad
from oracle import SIZE, Oracle, collate, head, infer, repeats_the_noise

from monai_diffens.networks.computation import computes_in_bf16
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler
from monai_diffens.target import ResidualTarget
from monai_diffens.transforms.thick_slices import measurement_from_meta


@pytest.mark.parametrize("fusion", ["calibrated", "mean", "alternate", "coronal"])
def test_fusion_is_handed_on(fusion):
    scheduler = TrailingDDIMScheduler()
    network = Oracle(scheduler, repeats_the_noise)
    infer(scheduler, fusion=fusion, num_steps=3)(torch.ones(1, 1, *SIZE), network)
    assert [(mode, step) for _, mode, step, _ in network.calls] == [(fusion, 0), (fusion, 1), (fusion, 2)]


def test_unknown_fusion_is_named_before_anything_runs():
    network = Oracle(TrailingDDIMScheduler(), repeats_the_noise)
    with pytest.raises(ValueError, match="unknown fusion 'best': use one of calibrated, mean"):
        infer(fusion="best")(torch.ones(1, 1, *SIZE), network)
    assert network.calls == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "got 0 and 1"),
        ({"num_samples": 0}, "got 2 and 0"),
        ({"num_samples": -3}, "1 or more"),
        ({"amp": "on"}, "amp must be true, false or 'auto', got 'on'"),
        ({"amp": None}, "amp must be"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        infer(**options)


@pytest.mark.parametrize(("gain", "base"), [(0.0, "condition"), (-1.0, "condition"), (1.5, "brain")])
def test_a_gain_that_means_nothing_is_refused(gain, base):
    with pytest.raises(ValueError, match="residual_gain must be"):
        infer(residual_gain=gain, target=ResidualTarget(base))


@pytest.mark.parametrize("restart", [0.0, 1.0, 2.0])
def test_bad_restart(restart):
    scheduler = TrailingDDIMScheduler()
    with pytest.raises(ValueError, match="restart must lie between 0 and 1"):
        infer(scheduler, restart=restart)(torch.ones(1, 1, *SIZE), Oracle(scheduler, repeats_the_noise))


@pytest.mark.parametrize(
    ("amp", "avx512", "amx", "used"),
    [
        ("auto", False, False, False),
        ("auto", True, False, True),
        ("auto", False, True, True),
        (True, False, False, True),
        (False, True, True, False),
    ],
)
def test_amp_is_used_where_the_processor_has_bf16(amp, avx512, amx, used, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    scheduler = TrailingDDIMScheduler()
    network = Oracle(scheduler, repeats_the_noise)
    inferer = infer(scheduler, amp=amp)
    assert computes_in_bf16(amp, "cpu") is used
    result = inferer(torch.ones(1, 1, *SIZE), network)
    assert {autocast for *_, autocast in network.calls} == {used}
    assert result.dtype == torch.float32


def test_bf16_is_close_to_single_precision(tiny_ensembler):
    network, inputs = tiny_ensembler(), collate(head("a"))
    exact, fast = (infer(amp=amp)(inputs, network).as_tensor() for amp in (False, True))
    assert 0 < (exact - fast).abs().max() < 0.1 * (exact - inputs.as_tensor()).abs().max()


def test_metadata_comes_back(tiny_ensembler):
    inputs = collate(head("a"), head("b", seed=1))
    result = infer()(inputs, tiny_ensembler())
    assert isinstance(result, MetaTensor) and result.shape == (2, 1, *SIZE)
    assert torch.equal(result.affine, inputs.affine)
    assert result.meta["filename_or_obj"] == ["/scans/a.nii.gz", "/scans/b.nii.gz"]
    plain = infer()(inputs.as_tensor(), tiny_ensembler())
    assert type(plain) is torch.Tensor


@pytest.mark.parametrize("batch_size", [1, 2])
def test_evaluator_of_monai_drives_it(tiny_ensembler, batch_size):
    network, results = tiny_ensembler(), []
    scans = [head("a"), head("b", (4, 1, 1), 1)]
    keep = Lambdad("pred", lambda pred: results.append(pred) or pred)
    loader = DataLoader(Dataset([{"image": scan} for scan in scans]), batch_size=batch_size)
    SupervisedEvaluator(torch.device("cpu"), loader, network, inferer=infer(), postprocessing=keep).run()
    for scan, result in zip(scans, results, strict=True):
        expected = infer()(collate(scan), network)[0]
        torch.testing.assert_close(result.as_tensor(), expected.as_tensor(), rtol=0, atol=1e-5)
        assert result.meta["filename_or_obj"] == scan.meta["filename_or_obj"]
        assert torch.equal(result.affine, scan.affine)
        assert measurement_from_meta(SIZE, result.meta).axes == measurement_from_meta(SIZE, scan.meta).axes


@pytest.mark.parametrize("progress", [True, False])
def test_progress_bar_counts_the_passes(progress, capsys):
    scheduler = TrailingDDIMScheduler()
    inferer = infer(scheduler, num_steps=3, num_samples=2, progress=progress)
    inferer(torch.ones(1, 1, 12, 12, 12), Oracle(scheduler, repeats_the_noise))
    err = capsys.readouterr().err
    assert ("denoising: 100%" in err and "6/6" in err) if progress else err == ""


def test_network_gets_no_gradient(tiny_ensembler):
    network = tiny_ensembler()
    result = infer()(torch.ones(1, 1, 12, 12, 12), network)
    assert not result.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())

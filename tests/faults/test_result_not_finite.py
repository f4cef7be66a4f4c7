"""Fault 14 and its kind: NaN or infinity from the network fails the case before anything is cut."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_diffens.data.writer import SaveVolumed
from monai_diffens.engines.case_evaluator import failure_line
from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from monai_diffens.messages import InputRejected
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler


def infer(scan, network, **options):
    options = {"non_negative": True, "with_scan": False} | options
    return DiffEnsemblerInferer.of(TrailingDDIMScheduler(), progress=False, amp=False, **options)(
        scan, network
    )


def scan(value: float = 0.5) -> torch.Tensor:
    volume = torch.rand(1, 1, 24, 28, 20, generator=torch.Generator().manual_seed(0)) + 0.1
    volume[..., 12, 14, 10] = value
    return volume


def fails(case, network, **options) -> None:
    with pytest.raises(InputRejected) as error:
        infer(case, network, **options)
    line = str(error.value)
    assert (
        "NaN or infinite" in line and len(line.splitlines()) == 1 and failure_line("a", error.value) == line
    )


def test_14_a_sound_network_is_accepted(tiny_ensembler):
    assert torch.isfinite(infer(scan(), tiny_ensembler())).all()


@pytest.mark.parametrize("value", [1e25, 3e38])
def test_14_one_voxel_far_beyond_all_others(tiny_ensembler, value):
    fails(scan(value), tiny_ensembler())


@pytest.mark.parametrize("gain", [float("inf"), 3e39])
def test_14_an_infinite_gain(tiny_ensembler, gain):
    fails(scan(), tiny_ensembler(), residual_gain=gain)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", ["bank.experts.0", "bank.experts.2", "calibrator"])
def test_14_one_weight_that_is_not_finite(tiny_ensembler, bad, part):
    network = tiny_ensembler()
    with torch.no_grad():
        parameter = next(p for p in network.get_submodule(part).parameters() if p.ndim > 1)
        parameter.view(-1)[0] = bad
    fails(scan(), network)
    fails(scan(), network, num_samples=2, spread=True, weights=True)


@pytest.mark.parametrize("sign", [1, -1])
def test_14_infinity_of_either_sign_from_an_expert_of_several_steps(tiny_ensembler, sign):
    network = tiny_ensembler()

    def overflow(module, inputs, output):
        return output + sign * torch.inf

    with network.get_submodule("bank.experts.1.unet.conv_in").register_forward_hook(overflow):
        fails(scan(), network, num_steps=3)


def test_14_what_overflows_later_is_not_written(tmp_path):
    volume = MetaTensor(torch.full((1, 4, 4, 4), 3e38), np.eye(4)) * 10
    with pytest.raises(InputRejected, match="NaN or infinite"):
        SaveVolumed("pred", output_dir=tmp_path)({"pred": volume, "case": "a"})
    assert not list(tmp_path.glob("*.nii.gz"))

"""A run keeps to its memory: estimated before, halved where it runs out, refused where it cannot fit."""

import logging
from itertools import pairwise

import pytest
import torch

from monai_diffens.bundle.before_run import ended_in_a_line
from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from monai_diffens.inferers.memory import (
    CPU_WORK,
    GIB,
    available_on,
    in_step,
    is_out_of_memory,
    plan_memory,
)
from monai_diffens.messages import InputRejected, OutOfStep, say
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler

SHAPE = (64, 72, 60)


def infer(**options) -> DiffEnsemblerInferer:
    return DiffEnsemblerInferer.of(TrailingDDIMScheduler(), progress=False, amp=False, **options)


def head(shape=(24, 28, 20)) -> torch.Tensor:
    return torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0)) + 0.1


def test_less_memory_means_smaller_passes_within_it(tiny_ensembler):
    network = tiny_ensembler()
    plans = [plan_memory(network, SHAPE, 1, max_memory=limit) for limit in (None, 0.03, 0.025)]
    for plan, limit in zip(plans[1:], (0.03, 0.025), strict=True):
        assert plan.volume_bytes + plan.work_bytes <= limit * GIB
    for more, less in pairwise(plans):
        assert less.volume_bytes == more.volume_bytes
        assert less.slice_chunk <= more.slice_chunk and less.window_voxels <= more.window_voxels
        assert less.work_bytes < more.work_bytes
    assert "GiB of memory" in str(plans[0])


def test_memory_for_the_networks_does_not_grow_with_the_volume(tiny_ensembler):
    network = tiny_ensembler()
    small, large = (plan_memory(network, (side,) * 3, 1, max_memory=64) for side in (128, 512))
    assert large.work_bytes <= max(small.work_bytes, CPU_WORK)
    assert large.volume_bytes == 64 * small.volume_bytes
    assert large.volume_bytes / (4 * 512**3) <= 10


def test_what_cannot_fit_is_refused_in_one_line(tiny_ensembler):
    with pytest.raises(
        InputRejected, match=r"^scan1: needs about .* GiB of memory and has 0\.01; raise --max_"
    ) as e:
        plan_memory(tiny_ensembler(), SHAPE, 1, max_memory=0.01, name="scan1")
    assert "\n" not in str(e.value)
    with pytest.raises(InputRejected, match="case: needs about"):
        infer(max_memory=1e-5)(head(), tiny_ensembler())
    with pytest.raises(ValueError, match="max_memory must be above 0 GiB, got 0"):
        infer(max_memory=0)


def test_the_limit_never_changes_the_volume(tiny_ensembler, caplog):
    caplog.set_level(logging.INFO)
    network, scan = tiny_ensembler(), head((120, 20, 24))
    free = infer()(scan, network)
    assert "GiB of memory beside the model" in caplog.text
    assert network.window_voxels == scan.numel()
    tight = infer(max_memory=0.0055)(scan, network)
    assert network.window_voxels < scan.numel()
    torch.testing.assert_close(tight, free, rtol=0, atol=1e-5)


@pytest.mark.parametrize("part", ["bank.experts.1.unet", "calibrator"])
def test_running_out_halves_and_goes_on(tiny_ensembler, part, monkeypatch, caplog):
    """Memory really runs out: a pass of too many voxels asks torch for more than there is."""
    network, scan = tiny_ensembler(), head((120, 20, 24))
    expected = infer()(scan, network)
    module = network.get_submodule("calibrator.conv_in" if part == "calibrator" else f"{part}.conv_in")
    limit, sizes = 4000 if part == "calibrator" else 3 * 720, []

    def greedy(module, inputs):
        size = inputs[0].shape[0] * inputs[0].shape[2:].numel()
        sizes.append(size)
        if size > limit:
            torch.empty(2**55, dtype=torch.uint8)

    with module.register_forward_pre_hook(greedy):
        result = infer()(scan, network)
    assert max(sizes) > limit >= min(sizes)
    assert "out of memory: going on with" in caplog.text
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)


def test_what_halving_cannot_cure_is_raised(tiny_ensembler):
    network = tiny_ensembler()

    def greedy(module, inputs):
        torch.empty(2**55, dtype=torch.uint8)

    with (
        network.calibrator.register_forward_pre_hook(greedy),
        pytest.raises(RuntimeError, match="allocate memory") as error,
    ):
        infer()(head(), network)
    assert is_out_of_memory(error.value)
    assert network.bank.slice_chunk == 1


def test_other_errors_are_not_taken_for_a_lack_of_memory(tiny_ensembler):
    network, calls = tiny_ensembler(), []

    def broken(module, inputs):
        calls.append(1)
        raise RuntimeError("a shape is wrong")

    with (
        network.calibrator.register_forward_pre_hook(broken),
        pytest.raises(RuntimeError, match="a shape is wrong"),
    ):
        infer()(head(), network)
    assert len(calls) == 1
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory")) and is_out_of_memory(MemoryError())


def test_available_memory_is_what_the_machine_has():
    available = available_on(torch.device("cpu"))
    assert available is None or 2**20 < available < 2**50


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_s_memory_is_asked_for(tiny_ensembler):
    _, total = torch.cuda.mem_get_info()
    assert 0 < available_on(torch.device("cuda")) <= total
    plan = plan_memory(tiny_ensembler(), SHAPE, 1, device="cuda")
    assert plan.window_voxels == 64 * 72 * 60 and plan.slice_chunk == 256


def test_a_process_that_others_wait_for_ends_with_a_line(tiny_ensembler):
    network = tiny_ensembler()
    network.bank.world_size = 2
    with pytest.raises(OutOfStep), in_step(network):
        raise MemoryError
    with pytest.raises(SystemExit) as stopped, ended_in_a_line(), in_step(network):
        raise MemoryError
    assert stopped.value.code == say("out_of_step", why="MemoryError")

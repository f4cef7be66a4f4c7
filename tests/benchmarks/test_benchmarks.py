"""The benchmarks run, and what they compare with is what they say."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

from monai_diffens.networks.computation import computes_in_bf16
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.scriptable_unet import ScriptableUNet

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Function (name) to a script of benchmarks/ as a module."""
    monkeypatch.syspath_prepend(BENCHMARKS)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def test_a_brain_takes_less_than_a_hundredth_of_the_published_operations(benchmark):
    counted = benchmark("bench_scaling").brain_flops()
    assert counted["reference_pass"] == pytest.approx(197e9, rel=0.01)  # of the published method's 2D network
    assert 0 < 100 * counted["ours"] < counted["reference"]


def test_stock_has_the_same_weights_and_no_block_of_ours(benchmark):
    baselines = benchmark("bench_baselines")
    expert = DiffEnsembler().bank.experts[1].eval()
    for parameter in expert.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    stock = baselines.stock_unet(expert.unet)
    assert isinstance(expert.unet, ScriptableUNet)
    assert not any(type(block).__module__.startswith("monai_diffens") for block in stock.modules())
    x, timesteps = torch.randn(2, 6, 32, 48), torch.tensor([999, 20])
    with torch.no_grad():
        ours = expert(x, timesteps)
        expert.unet = stock
        torch.testing.assert_close(expert(x, timesteps), ours, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone tells the peak of a run")
@pytest.mark.skipif(not computes_in_bf16("auto", "cpu"), reason="a processor without bf16 takes more memory")
def test_memory_grows_by_ten_volumes_at_most_from_128_to_256_cubed(benchmark):
    run, script = benchmark("measurement").in_process, BENCHMARKS / "bench_scaling.py"
    small, large = (run(str(script), "--part", side) for side in (128, 256))
    most = small["peak_bytes"] + 10 * 4 * 256**3
    if large["peak_bytes"] >= most:  # the allocator adds to a peak by chance, never takes from it
        large = run(str(script), "--part", 256)
    assert 0 < small["peak_bytes"] < large["peak_bytes"] < most
    assert all(row["peak_bytes"] < row["estimated_bytes"] for row in (small, large))


@pytest.mark.parametrize(
    "method",
    [
        "ours",
        "whole slices",
        "stock MONAI",
        "one plane",
        pytest.param("3D diffusion model", marks=pytest.mark.slow),
    ],
)
def test_every_method_is_measured(benchmark, method):
    baselines = benchmark("bench_baselines")
    figures = baselines.part(method, 32, 1, flops=True)
    assert set(figures) == {"wall_s", "again_s", "processor_s", "peak_bytes", "flops"}
    assert min(figures["wall_s"], figures["again_s"], figures["flops"]) > 0


def test_with_whole_slices_ours_is_stock_to_rounding(benchmark):
    found = benchmark("bench_baselines").differences(benchmark("measurement").brain((48, 56, 40)))
    assert found["float32"] < 1e-5 * found["residual"]
    assert found["float32"] < found["bf16"] < 0.05 * found["residual"]
    assert found["bf16"] < found["cropped"] < found["residual"]  # norms see less background
    assert found["bf16_close"] > 0.999 > found["cropped_close"] > 0.9


def test_a_machine_is_told_by_the_products_it_computes_a_second(benchmark):
    rates = benchmark("measurement").machine()["product_rate"]
    assert set(rates) == {"float32", "bf16"}
    assert min(rates.values()) > 1e9  # less than a billion a second is no processor that trains


def test_a_pass_goes_through_few_functions_and_a_case_through_few_files(benchmark):
    counts = benchmark("bench_hops").counted()
    assert 4 <= counts["frames"] <= 7 and 50 < counts["hops"] <= 500
    assert counts["frames"] < counts["whole"] <= 12

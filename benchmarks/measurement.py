"""What benchmarks measure of a run, in a process of its own so that peak memory is the run's alone."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.weights import load_weights
from monai_diffens.transforms.intensity import foreground_percentile

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "performance"
BRAIN_SHAPE = (192, 192, 152)  # a 1 mm brain, as the reference counts it


def fastest_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def network() -> DiffEnsembler:
    """The shipped super-resolution model."""
    model = DiffEnsembler().eval()
    load_weights(model, ROOT / "bundles" / "diffensembler_sr" / "models" / "model.pt")
    return model


def brain(shape: tuple[int, int, int], seed: int = 0) -> torch.Tensor:
    """An ellipsoid of smooth tissue on 0, (1, 1, X, Y, Z): a brain fills about 45 % of its scan's box."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 1, *(max(2, side // 8) for side in shape), generator=generator)
    tissue = 0.3 + 0.5 * torch.nn.functional.interpolate(coarse, shape, mode="trilinear")
    axes = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in shape), indexing="ij")
    inside = sum((axis / 0.95) ** 2 for axis in axes) < 1
    return tissue * inside


def template() -> torch.Tensor:
    """The ICBM 152 T1w template at 1 mm that nilearn carries, (1, 1, X, Y, Z), background and all."""
    from nilearn.datasets import load_mni152_template

    volume = torch.as_tensor(load_mni152_template(resolution=1).get_fdata(), dtype=torch.float32)
    return (volume / foreground_percentile(volume, 99.5))[None, None]


def measure(run: Callable[[], Any], device: torch.device) -> dict[str, float]:
    """Wall and processor seconds of a run, and how far the process's memory rose in it above that before."""
    # What loading took for a while, and glibc still keeps, would hide as much of what the run takes. Linux
    # forgets the peak so far, see proc(5).
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = resident_bytes("VmRSS")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.max_memory_allocated()
        torch.cuda.synchronize()
    wall, processor = time.perf_counter(), time.process_time()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    figures = {"wall_s": time.perf_counter() - wall, "processor_s": time.process_time() - processor}
    peak = resident_bytes("VmHWM")
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    return figures | {"peak_bytes": float(peak - before)}


def resident_bytes(field: str) -> int:
    """Memory of this process: "VmRSS" now, "VmHWM" at the most."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def count_flops(run: Callable[[], Any]) -> float:
    """Floating point operations of a run, counted by torch; a multiplication with its addition is two."""
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def in_process(script: str, *arguments: object) -> dict[str, Any]:
    """Run a benchmark script's part in a process of its own; its last line of output is JSON."""
    command = [sys.executable, script, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def product_rate(dtype: torch.dtype, device: torch.device, side: int = 2048) -> float:
    """Floating point operations a second that a matrix product reaches: what a network could at best."""
    a, b = torch.rand(2, side, side, device=device).to(dtype)
    a @ b  # kernels are chosen
    seconds = min(measure(lambda: a @ b, device)["wall_s"] for _ in range(5))
    return 2 * side**3 / seconds


def machine() -> dict[str, Any]:
    """What the figures were measured on; ``product_rate`` tells machines of one name apart."""
    types = {"float32": torch.float32, "bf16": torch.bfloat16}
    return {
        "product_rate": {name: product_rate(kind, fastest_device()) for name, kind in types.items()},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "processor",
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
        "torch": torch.__version__,
    }


def save(name: str, content: dict[str, Any]) -> None:
    """Write a benchmark's figures to docs/performance."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def sizes(default: str) -> argparse.ArgumentParser:
    """Parser with the option that all benchmarks have."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default=default, help="sides of the cubes, separated by commas")
    return parser

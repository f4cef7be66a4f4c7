"""What training costs here: seconds a step of each stage, peak memory, and what the replay buffer buys.

    python benchmarks/bench_training.py [--repeats 3]

Networks, slices, crops and batches are those of the super-resolution bundle's configs. Live training runs the
frozen experts on whole regions for every crop; replay runs them once a draw and trains on crops of the draws.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measurement import fastest_device

from monai_diffens.data.expert_replay import ExpertReplay
from monai_diffens.engines.fusion import FusionPrepareBatch, FusionStep, RelativeSquaredError
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.plane_denoiser import PlaneDenoiser
from monai_diffens.schedulers.trailing_ddim import TrailingDDIMScheduler

CONFIG = Path(__file__).parents[1] / "bundles" / "diffensembler_sr" / "configs" / "train.json"
SLICES, SIDE, REGION = 16, 128, (128, 128, 96)


def seconds(work: Callable[[], None], repeats: int, device: torch.device) -> float:
    """Shortest of several runs, after one to warm up."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def peak_gib(device: torch.device) -> float:
    """Peak memory so far: of the GPU where there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    device = fastest_device()
    config = json.loads(CONFIG.read_text(encoding="utf-8"))
    steps, draws, batch = config["max_epochs"] * config["iterations"], config["draws"], config["batch_size"]
    torch.manual_seed(0)

    network = DiffEnsembler().to(device)
    image = torch.rand(1, *REGION)
    item = {"image": image, "label": image + 0.05 * torch.randn(1, *REGION)}
    replay = ExpertReplay([item], network.bank, TrailingDDIMScheduler(), draws=1, length=batch)
    draw_time = seconds(lambda: replay.entries.__setitem__(slice(None), [replay.draw(0)]), repeats, device)
    draw_memory = peak_gib(device)

    step, loss = FusionStep(network), RelativeSquaredError()
    optimizer = torch.optim.AdamW(network.calibrator.parameters(), lr=1e-4)
    crops = torch.utils.data.default_collate([replay[index] for index in range(batch)])

    def calibrate() -> None:
        x_t, target, _, keywords = FusionPrepareBatch()(crops, device)
        optimizer.zero_grad()
        loss(step(x_t, **keywords), target).backward()
        optimizer.step()

    step_time = seconds(calibrate, repeats, device)
    step_memory = peak_gib(device)

    denoiser = PlaneDenoiser().to(device, memory_format=torch.channels_last)
    plane_optimizer = torch.optim.AdamW(denoiser.parameters(), lr=1e-4)
    slices = torch.randn(SLICES, 6, SIDE, SIDE, device=device).to(memory_format=torch.channels_last)
    timesteps = torch.linspace(0, 999, SLICES, device=device).long()

    def train_plane() -> None:
        plane_optimizer.zero_grad()
        denoiser(slices, timesteps).square().mean().backward()
        plane_optimizer.step()

    plane_time = seconds(train_plane, repeats, device)
    live, replayed = batch * draw_time + step_time, draws / steps * draw_time + step_time
    threads = f"{torch.get_num_threads()} threads" if device.type == "cpu" else torch.cuda.get_device_name()
    print(
        f"| what ({device.type}, {threads}, torch {torch.__version__}) | seconds | peak memory so far / GiB |"
    )
    print("|---|---|---|")
    rows = [
        (f"stage 1: 1000 slices of {SIDE} x {SIDE}", plane_time * 1000 / SLICES, peak_gib(device)),
        (f"stage 2: experts on one draw of {' x '.join(map(str, REGION))}", draw_time, draw_memory),
        (f"stage 2: calibrator step, {batch} crops of 48 cubed", step_time, step_memory),
        ("stage 2: useful step, live experts", live, None),
        (f"stage 2: useful step, replay ({draws} draws for {steps} steps)", replayed, None),
    ]
    for name, value, memory in rows:
        print(f"| {name} | {value:.3g} | {'' if memory is None else f'{memory:.2f}'} |")
    print(f"\nreplay over live: {live / replayed:.1f} times faster a useful step")


if __name__ == "__main__":
    main()

"""Ours against the same weights in stock MONAI pieces, a 3D diffusion model of equal size, and one plane.

    python benchmarks/bench_baselines.py [--sizes 64] [--repeats 3] [--brain_repeats 1] [--num_steps 1]

Of cubes full of brain, and of the 1 mm template brain of the demo with its background, as a user has a scan.
Runs alternate, so that a busy machine slows all of them alike; the ratios are of medians.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import torch
from measurement import (
    brain,
    count_flops,
    fastest_device,
    in_process,
    machine,
    measure,
    network,
    save,
    sizes,
    template,
)
from monai.inferers import DiffusionInferer, SliceInferer
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler
from torch import Tensor

from monai_diffens.acquisition.slicing import neighbour_slices, plane_axis, to_volume
from monai_diffens.inferers.case_denoiser import foreground_box, shown_boxes
from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from monai_diffens.schedulers.arithmetic import from_clean, to_clean
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler
from monai_diffens.target import RESIDUAL_SCALE

BRAIN = 0  # the template, in place of a cube's side
METHODS = ("ours", "whole slices", "stock MONAI", "one plane", "3D diffusion model")
OPTIONS: dict[str, dict[str, Any]] = {  # of the inferer, where a method is ours
    "ours": {},
    "whole slices": {"crop_slices": False, "margin": 2},
    "one plane": {"fusion": "axial"},
}
COSINE = {"schedule": "cosine", "prediction_type": "v_prediction", "clip_sample": False}


class Stock:
    """The shipped weights in MONAI's own 2D network, SliceInferer plane by plane, whole scan, float32."""

    def __init__(self, device: torch.device) -> None:
        self.network = network()
        for expert in self.network.bank.experts:
            expert.unet = stock_unet(expert.unet)
        self.network.to(device)

    def __call__(self, x: Tensor, timesteps: Tensor, context: Tensor | None = None) -> Tensor:
        """Predict from cat[x_t, condition], as MONAI's DiffusionInferer asks."""
        x_t, condition = x[:, :1], x[:, 1:]
        predictions = []
        for expert, plane in zip(self.network.bank.experts, self.network.bank.planes, strict=True):
            axis = plane_axis(plane)
            # SliceInferer knows no neighbours: they become channels of the volume first
            around = to_volume(neighbour_slices(condition, plane, self.network.bank.reach), plane, 1)
            roi = [side for index, side in enumerate(x.shape[2:]) if index != axis]
            slicer = SliceInferer(roi_size=roi, sw_batch_size=16, spatial_dim=axis, progress=False)

            def one_batch(slices: Tensor, expert=expert) -> Tensor:
                return expert(slices, timesteps.expand(slices.shape[0]))

            predictions.append(slicer(torch.cat([x_t, around], dim=1), one_batch))
        present = torch.ones(1, len(predictions), dtype=torch.bool, device=x.device)
        return self.network.fuse(x_t, condition, torch.cat(predictions, dim=1), timesteps, present).prediction


def stock_unet(unet: DiffusionModelUNet) -> DiffusionModelUNet:
    """MONAI's own network with an expert's weights: no block of it replaced."""
    stock = DiffusionModelUNet(
        spatial_dims=2,
        in_channels=unet.in_channels,
        out_channels=unet.out_channels,
        channels=unet.block_out_channels,
        num_res_blocks=unet.num_res_blocks,
        attention_levels=unet.attention_levels,
        norm_num_groups=unet.out[0].num_groups,
        num_head_channels=unet.num_head_channels,
    )
    stock.load_state_dict(unet.state_dict())
    return stock.eval()


def build(method: str, side: int, num_steps: int, device: torch.device):
    """Function of nothing that restores the scan once by a method; it returns the residual's volume.

    "whole slices" is ours without the crop of slices, whose volume is that of stock pieces to rounding, on a
    closer box: fewer slices, and fewer voxels to pad them by.
    """
    scan = (template() if side == BRAIN else brain((side, side, side))).to(device)
    if method in OPTIONS:
        ours = DiffEnsemblerInferer.of(
            TrailingDDIMScheduler(), num_steps=num_steps, restart=None, progress=False, **OPTIONS[method]
        )
        model = network().to(device)
        return lambda: (ours(scan, model) - scan) / RESIDUAL_SCALE
    # MONAI begins 1000 / num_steps timesteps short of pure noise, unless it is told to begin there
    scheduler = DDIMScheduler(1000, steps_offset=1000 // num_steps - 1, **COSINE)
    scheduler.set_timesteps(num_steps)
    noise = torch.randn(scan.shape, generator=torch.Generator().manual_seed(0)).to(device)
    if method == "stock MONAI":
        model = Stock(device)
    else:  # as many parameters; attention nowhere but in its middle block, where MONAI always has it
        model = DiffusionModelUNet(
            spatial_dims=3,
            in_channels=2,
            out_channels=1,
            channels=(64, 128, 192),
            attention_levels=(False,) * 3,
            num_res_blocks=1,
            num_head_channels=64,
        ).to(device)
        model.eval()
    stock = DiffusionInferer(scheduler)

    def run() -> Tensor:
        return stock.sample(noise, model, scheduler, conditioning=scan, mode="concat", verbose=False)

    return run


@torch.no_grad()
def differences(scan: Tensor) -> dict[str, float]:
    """What a pass, from the same noise, differs by from stock pieces on the box of "whole slices".

    Root mean squares inside of it, data range 1. ``residual``: of what stock pieces add to the scan.
    ``float32``, ``bf16``: ours with whole slices. ``cropped``: in bf16, slices cropped, as cases are run.
    ``background``: stock pieces on the whole scan. ``*_close``: share of the voxels that are stock's within
    torch's own tolerance for bf16.
    """
    model, stock = network().to(scan.device), Stock(scan.device)
    noise = torch.randn(scan.shape, generator=torch.Generator().manual_seed(0)).to(scan.device)
    inferer = DiffEnsemblerInferer.of(TrailingDDIMScheduler(), **OPTIONS["whole slices"])
    region = foreground_box(scan, inferer.run_time.margin)
    x_t, condition = noise[(..., *region)], scan[(..., *region)]
    last = inferer.scheduler.num_train_timesteps - 1
    timesteps = torch.full((1,), last, device=scan.device)
    level = float(inferer.scheduler.alphas_cumprod[last])

    def clean(velocity: Tensor) -> Tensor:
        return RESIDUAL_SCALE * to_clean(velocity.float(), x_t, level, "v_prediction")

    def ours(bf16: bool, boxes: list[list[list[int]]] | None) -> Tensor:
        with torch.autocast(scan.device.type, torch.bfloat16, enabled=bf16):
            present = model.taking_part(condition, "calibrated")
            predictions = model.bank(x_t, condition, timesteps, present, boxes, empty)
            return clean(model.fuse(x_t, condition, predictions, timesteps, present).prediction)

    empty = float(from_clean(torch.zeros(()), torch.ones(()), level, "v_prediction"))
    reference = clean(stock(torch.cat([x_t, condition], dim=1), timesteps))
    whole = stock(torch.cat([noise, scan], dim=1), timesteps)[(..., *region)]
    others = {
        "float32": ours(False, None),
        "bf16": ours(True, None),
        "cropped": ours(True, shown_boxes(condition, model.planes)),
        "background": clean(whole),
    }
    inside = condition > 0
    stock_scan = (condition + reference)[inside]

    def root_mean_square(values: Tensor) -> float:
        return float(values[inside].square().mean().sqrt())

    def share_close(volume: Tensor) -> float:
        tolerance = {"rtol": 1.6e-2, "atol": 1e-5}  # torch.testing.assert_close's for bf16
        return float(torch.isclose((condition + volume)[inside], stock_scan, **tolerance).float().mean())

    found = {name: root_mean_square(volume - reference) for name, volume in others.items()}
    close = {f"{name}_close": share_close(others[name]) for name in ("bf16", "cropped")}
    return {"residual": root_mean_square(reference)} | found | close


def part(method: str, side: int, num_steps: int, flops: bool) -> dict[str, float]:
    """Figures of one method, in this process; ``again_s`` is the time of another run in it."""
    device = fastest_device()
    with torch.no_grad():
        build(method, 16, 1, device)()  # libraries are loaded, kernels chosen
        run = build(method, side, num_steps, device)
        figures = measure(run, device)
        figures["again_s"] = measure(run, device)["wall_s"]
        return figures | ({"flops": count_flops(run)} if flops else {})  # apart: counting takes time


def compare(title: str, methods: Sequence[str], side: int, num_steps: int, repeats: int) -> dict:
    """Medians of each method's figures, measured in turn; prints them and the ratios."""
    runs: dict[str, list[dict[str, float]]] = {method: [] for method in methods}
    for repeat in range(repeats):
        for method in methods:
            runs[method].append(in_process(__file__, "--part", method, side, num_steps, int(repeat == 0)))
    keys = ("wall_s", "again_s", "processor_s", "peak_bytes")
    table = {
        method: {key: statistics.median(run[key] for run in each) for key in keys}
        | {"flops": each[0]["flops"]}
        for method, each in runs.items()
    }
    for method, row in table.items():
        ours = table["ours"]
        print(
            f"{title} {method}: {row['wall_s']:.2f} s wall, {row['again_s']:.2f} s again, "
            f"{row['processor_s']:.2f} s processor, "
            f"{row['flops'] / 1e9:.0f} GFLOP, {row['peak_bytes'] / 2**20:.0f} MiB; over ours: "
            + ", ".join(f"{key} x{row[key] / ours[key]:.2f}" for key in row if ours[key]),
            flush=True,
        )
    return table


def main() -> None:
    """Measure all methods, and print the ratios."""
    parser = sizes("64")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--brain_repeats", type=int, default=3, help="of the template; 0 leaves it out")
    parser.add_argument("--num_steps", type=int, default=1)
    options = parser.parse_args()
    report: dict = {"machine": machine(), "num_steps": options.num_steps, "sides": {}}
    for side in map(int, filter(None, options.sizes.split(","))):
        # the 3D model's attention is quadratic in voxels
        methods = METHODS if side <= 64 else METHODS[:-1]
        report["sides"][side] = compare(f"{side}^3", methods, side, options.num_steps, options.repeats)
    if options.brain_repeats:
        shape = list(template().shape[2:])
        methods, repeats = METHODS[:-1], options.brain_repeats
        table = compare(f"1 mm brain {shape}", methods, BRAIN, options.num_steps, repeats)
        found = differences(template().to(fastest_device()))
        print(f"1 mm brain {shape}, unlike stock by: " + ", ".join(f"{k} {v:.5f}" for k, v in found.items()))
        report["brain"] = {"shape": shape, "repeats": repeats, "methods": table, "differences": found}
    save("baselines", report)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--part"]:
        name, side_, steps_, flops_ = sys.argv[2:]
        print(json.dumps(part(name, int(side_), int(steps_), bool(int(flops_)))))
    else:
        main()

"""Cost as the volume grows: time, floating point operations, memory; and a 1 mm brain's operations counted.

    python benchmarks/bench_scaling.py [--sizes 64,96]

``--sizes 64,96,128,192,256`` is the whole curve: some ten minutes on two idle processor cores.
"""

from __future__ import annotations

import json
import sys
from functools import partial

import torch
from measurement import (
    BRAIN_SHAPE,
    RESULTS,
    brain,
    count_flops,
    fastest_device,
    in_process,
    machine,
    measure,
    network,
    save,
    sizes,
)
from monai.networks.nets import DiffusionModelUNet

from monai_diffens.acquisition.slicing import plane_axis
from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from monai_diffens.inferers.memory import plan_memory
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler

REFERENCE_PASSES = 26_800  # slice passes a volume: 536 slices, 50 steps


def part(side: int) -> dict[str, float]:
    """Figures of the default dial on a cube, in this process."""
    device = fastest_device()
    model = network().to(device)
    inferer = DiffEnsemblerInferer.of(TrailingDDIMScheduler(), progress=False)
    small = brain((16, 16, 16)).to(device)
    inferer(small, model)  # libraries are loaded, kernels chosen
    scan = brain((side, side, side)).to(device)
    figures = measure(lambda: inferer(scan, model), device)
    plan = plan_memory(model, (side,) * 3, 3, device=device)
    return figures | {
        "estimated_bytes": plan.volume_bytes + plan.work_bytes,
        "slice_chunk": model.bank.slice_chunk,
        "window_voxels": model.window_voxels,
    }


@torch.no_grad()
def brain_flops() -> dict[str, float]:
    """Operations of a 1 mm brain, nothing cropped, at the default dial, and of the reference's passes.

    Counted on meta tensors: shapes alone decide, nothing is computed.
    """
    model = DiffEnsembler().eval().to("meta")
    unet = DiffusionModelUNet(
        spatial_dims=2,
        in_channels=6,
        out_channels=1,
        channels=(64, 128, 256, 512),
        attention_levels=(False,) * 4,
        num_res_blocks=2,
        num_head_channels=64,
    )
    unet.eval().to("meta")
    with torch.device("meta"):
        ours = 0.0
        for plane, expert in zip(model.bank.planes, model.bank.experts, strict=True):
            axis = plane_axis(plane)
            height, width = (side for index, side in enumerate(BRAIN_SHAPE) if index != axis)
            slices = torch.empty(BRAIN_SHAPE[axis], 2 + 2 * model.bank.reach, height, width)
            ours += count_flops(partial(expert, slices, torch.zeros(BRAIN_SHAPE[axis])))
        x, predictions = torch.empty(1, 1, *BRAIN_SHAPE), torch.empty(1, 3, *BRAIN_SHAPE)
        present = torch.ones(1, 3, dtype=torch.bool)
        ours += count_flops(lambda: model.calibrator(x, x, predictions, torch.zeros(1), present))
        slices = torch.empty(1, 6, 192, 192)
        one_pass = count_flops(lambda: unet(slices, torch.zeros(1)))
    return {"ours": ours, "reference_pass": one_pass, "reference": one_pass * REFERENCE_PASSES}


def plot(report: dict) -> None:
    """Draw time and memory over voxels."""
    import matplotlib.pyplot as plt

    voxels = [int(side) ** 3 / 1e6 for side in report["sides"]]
    rows = list(report["sides"].values())
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    left.plot(voxels, [row["processor_s"] for row in rows], "o-")
    left.set(xlabel="million voxels", ylabel="processor seconds")
    right.plot(voxels, [row["peak_bytes"] / 2**30 for row in rows], "o-", label="measured")
    right.plot(voxels, [row["estimated_bytes"] / 2**30 for row in rows], "x--", label="estimated before")
    right.set(xlabel="million voxels", ylabel="peak memory, GiB")
    right.legend()
    RESULTS.mkdir(parents=True, exist_ok=True)
    figure.savefig(RESULTS / "scaling.png", dpi=110)


def main() -> None:
    """Measure every size, and print how time and memory grow."""
    options = sizes("64,96").parse_args()
    report: dict = {"machine": machine(), "brain_flops": brain_flops(), "sides": {}}
    flops = report["brain_flops"]
    ratio = flops["reference"] / flops["ours"]
    print(
        f"{BRAIN_SHAPE} at the default dial: {flops['ours'] / 1e12:.2f} TFLOP; {REFERENCE_PASSES} passes of "
        f"the reference at {flops['reference_pass'] / 1e9:.0f} GFLOP: x{ratio:.0f}"
    )
    before: tuple[int, dict[str, float]] | None = None
    for side in map(int, options.sizes.split(",")):
        row = in_process(__file__, "--part", side)
        report["sides"][side] = row
        line = f"{side}^3: {row['processor_s']:.1f} s processor, {row['wall_s']:.1f} s wall, "
        line += f"{row['peak_bytes'] / 2**20:.0f} MiB (estimated {row['estimated_bytes'] / 2**20:.0f})"
        if before is not None:
            grown = (row["peak_bytes"] - before[1]["peak_bytes"]) / (4 * side**3)
            line += f"; voxels x{(side / before[0]) ** 3:.2f}, time x"
            line += (
                f"{row['processor_s'] / before[1]['processor_s']:.2f}, memory grown by {grown:.1f} volumes"
            )
        print(line, flush=True)
        before = (side, row)
    ends = [report["sides"].get(side) for side in (128, 256)]
    if all(ends):
        grown = (ends[1]["peak_bytes"] - ends[0]["peak_bytes"]) / (4 * 256**3)
        print(f"from 128 to 256 cubed memory grows by {grown:.1f} volumes of 256 cubed")
    save("scaling", report)
    plot(report)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--part"]:
        print(json.dumps(part(int(sys.argv[2]))))
    else:
        main()

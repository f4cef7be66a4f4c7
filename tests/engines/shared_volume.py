"""Run in each of two processes: one volume alone and shared, saved for the test with what was run."""

import sys
from collections import Counter
from pathlib import Path

import torch

from monai_diffens.engines import processes
from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.schedulers.few_steps import DPMSolverPlusPlusScheduler


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    small = {"channels": (8, 16), "stem": 2, "norm_num_groups": 4, "num_head_channels": 8}
    network = DiffEnsembler(calibrator_channels=(8, 16), **small).eval()
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    slices: Counter[str] = Counter()
    voxels: list[int] = []
    for name, expert in zip(network.expert_names, network.bank.experts, strict=True):
        expert.unet.conv_in.register_forward_pre_hook(lambda _, x, n=name: slices.update({n: len(x[0])}))
    network.calibrator.register_forward_pre_hook(lambda _, x: voxels.append(x[0].numel()))
    scan = torch.rand(1, 1, 30, 20, 70) + 0.1

    def run() -> dict:
        slices.clear()
        voxels.clear()
        inferer = DiffEnsemblerInferer.of(
            DPMSolverPlusPlusScheduler(), num_steps=3, num_samples=2, weights=True, progress=False, amp=False
        )
        return {"volume": inferer(scan, network), "slices": dict(slices), "voxels": list(voxels)}

    alone = run()
    processes.start("slices")
    processes.join(network, "slices")
    shared = run()
    rank = processes.place().rank
    torch.save(
        {"alone": alone, "shared": shared, "writes": processes.writes("slices")}, folder / f"{rank}.pt"
    )
    processes.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""PSNR, SSIM and sharpness over network passes, for DDIM, DPM-Solver++ and restart, on split val.

python benchmarks/bench_dial.py [--data ../shared/data] [--region 64] [--passes 1,2,4,8] [--min_sharpness 0.5]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from measurement import RESULTS, network, save
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import CenterSpatialCrop

from monai_diffens.schedulers.few_steps import DPMSolverPlusPlusScheduler, TrailingDDIMScheduler
from monai_diffens.transforms.thick_slices import thick_slice
from research.data_pack import sharp_volumes
from research.metrics.suite import volume_metrics

SAMPLERS = {
    "DDIM": (TrailingDDIMScheduler, None),
    "DPM-Solver++": (DPMSolverPlusPlusScheduler, None),
    "DDIM, restart 0.5": (TrailingDDIMScheduler, 0.5),
    "DPM-Solver++, restart 0.5": (DPMSolverPlusPlusScheduler, 0.5),
}
SHOWN = {"psnr_brain": "PSNR / dB, brain", "ssim_brain": "SSIM, brain", "sharpness": "sharpness, 1 = truth"}


def main() -> None:
    """Restore a central region of every val volume in every way, and draw the curves."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--region", type=int, default=64, help="side of the central cube, in voxels")
    parser.add_argument("--passes", default="1,2,4,8")
    parser.add_argument("--min_sharpness", type=float, default=0.5, help="of the val volumes' slices")
    options = parser.parse_args()
    if not (Path(options.data) / "participants.tsv").is_file():
        print(f"no scans at {options.data}: the dial was not measured")
        return
    config = ConfigParser(ConfigParser.load_config_file(evaluate_config()))
    preprocessing, inferer = (config.get_parsed_content(name) for name in ("preprocessing", "inferer"))
    model, rows = network(), []
    for item in sharp_volumes(options.data, "val", min_sharpness=options.min_sharpness):
        truth = CenterSpatialCrop([options.region] * 3)(preprocessing(item)["label"])
        truth = MetaTensor(torch.as_tensor(truth).float(), meta={"case": item["case"]})
        scan = thick_slice(truth, (4, 4, 4))[None]
        for sampler, (scheduler, restart) in SAMPLERS.items():
            for passes in map(int, options.passes.split(",")):
                if restart is not None and passes == 1:
                    continue  # there is nothing to start again
                sampling = inferer.changed(num_steps=passes, restart=restart)
                sampling.scheduler = scheduler()
                result = torch.as_tensor(sampling(scan, model)[0]).clamp(min=0)
                plain = truth.as_tensor()[0]
                figures = volume_metrics(result[0], plain, plain > 0, data_range=1.0)
                rows.append({"case": item["case"], "sampler": sampler, "passes": passes} | figures)
                print(sampler, passes, {key: round(figures[key], 3) for key in figures}, flush=True)
    save("dial", {"split": "val", "region": options.region, "factors": "4x4x4", "rows": rows})
    draw(rows)


def evaluate_config() -> str:
    """The bundle's evaluation, whose preprocessing makes the truth and whose inferer is what ships."""
    return str(Path(__file__).parents[1] / "research" / "configs" / "sr" / "evaluate.json")


def draw(rows: list[dict]) -> None:
    """One curve a sampler, the mean over cases, a panel a figure."""
    figure, panels = plt.subplots(1, len(SHOWN), figsize=(4 * len(SHOWN), 3), layout="constrained")
    for panel, (key, name) in zip(panels, SHOWN.items(), strict=True):
        for sampler in SAMPLERS:
            passes = sorted({row["passes"] for row in rows if row["sampler"] == sampler})
            means = []
            for number in passes:
                each = [row[key] for row in rows if (row["sampler"], row["passes"]) == (sampler, number)]
                means.append(sum(each) / len(each))
            panel.plot(passes, means, "o-", label=sampler)
        ticks = sorted({row["passes"] for row in rows})
        panel.set_xscale("log", base=2)
        panel.set_xticks(ticks, map(str, ticks))
        panel.set(xlabel="network passes", ylabel=name)
    panels[0].legend(fontsize="x-small")
    figure.savefig(RESULTS / "dial.png", dpi=110)


if __name__ == "__main__":
    main()

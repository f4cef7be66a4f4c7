"""What training costs on one core here: GFLOP/s of a step of stage 1, beside the chip's matrix product.

    python benchmarks/bench_training.py [--repeats 5] [--compile]

Networks, crops and batches are those of the bundles' train_planes.json, with a patch stem of 2. A row is one
way to run the step: in float32, in bf16, in bf16 with weights and slices in channels_last, and with --compile
through torch.compile (minutes the first time). The ways take turns: a shared machine slows all alike. Then
the data: what a crop costs, and what it costs to vary a volume, as the share that both leave for the step.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measurement import product_rate
from monai.bundle import ConfigParser
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

BUNDLES = Path(__file__).parents[1] / "bundles"
DATA = Path(os.environ.get("DIFFENS_DATA") or Path(__file__).parents[2] / "shared" / "data")


def training_config(bundle: str) -> ConfigParser:
    """Parsed train_planes.json of a bundle, with the data pack where there is one."""
    parser = ConfigParser()
    parser.read_config(BUNDLES / bundle / "configs" / "train_planes.json")
    parser["dataset_dir"], parser["val_interval"], parser["slots"] = str(DATA), 0, parser["refresh"]
    parser["network_def::stem"] = 2  # of the weights in training
    return parser


class Step:
    """One way to run a training step of an expert on given crops."""

    def __init__(
        self, network: nn.Module, crops: Tensor, classes: int | None, bf16: bool, compiled: bool = False
    ):
        self.network, self.crops, self.bf16 = network, crops, bf16
        self.run = torch.compile(network, dynamic=False) if compiled else network
        self.timesteps = torch.linspace(0, 999, len(crops)).long()
        self.labels = None if classes is None else torch.arange(len(crops)) % classes
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def __call__(self) -> None:
        """Forward, backward, and a step of the optimiser."""
        self.optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
            prediction = self.run(self.crops, self.timesteps, None, self.labels)
        prediction.float().square().mean().backward()
        self.optimizer.step()


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of one run."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def ways(bundle: str, compiled: bool) -> tuple[dict[str, Step], int]:
    """Ways to run a step, and the crops it takes."""
    config = training_config(bundle)
    count = config["batch_size"] * config["crops"]
    options = {key: value for key, value in config["network_def"].items() if key != "_target_"}

    def step(bf16: bool, layout: torch.memory_format, compiled: bool = False) -> Step:
        torch.manual_seed(0)
        network = config.get_parsed_content("network_def", instantiate=False).instantiate()
        network = network.to(memory_format=layout)
        joint = options.get("conditions", 1)
        channels = 1 + options.get("condition_channels", 5) + (joint if joint > 1 else 0)
        side = config["slice_size"]
        crops = torch.rand(count, channels, side, side).to(memory_format=layout)
        return Step(network, crops, options.get("num_class_embeds"), bf16, compiled)

    plain, last = torch.contiguous_format, torch.channels_last
    steps = {
        "float32": step(False, plain),
        "bf16": step(True, plain),
        "bf16, channels_last": step(True, last),
    }
    if compiled:
        steps["bf16, compiled"] = step(True, plain, compiled=True)
    return steps, count


def data_seconds(bundle: str, repeats: int) -> tuple[float, float]:
    """Seconds to cut the crops of one volume of the buffer, and to vary one volume."""
    dataset = training_config(bundle).get_parsed_content("train#dataset")
    dataset[0]  # fills the buffer, and the cache of what it draws
    number = iter(range(2, 1000))
    vary = [seconds(lambda: dataset.make(next(number) % 2)) for _ in range(repeats)]
    cut = [seconds(lambda: dataset[0]) for _ in range(4 * repeats)]
    return sorted(cut)[len(cut) // 2], sum(vary) / len(vary)


def main() -> None:
    """Measure and print one table a bundle."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    product = {
        kind: product_rate(kind, torch.device("cpu")) / 1e9 for kind in (torch.float32, torch.bfloat16)
    }
    print(f"one thread; matrix product: {product[torch.float32]:.0f} GFLOP/s in float32, ", end="")
    print(f"{product[torch.bfloat16]:.0f} in bf16; torch {torch.__version__}")
    for bundle in ("diffensembler_sr", "diffensembler_translate"):
        steps, count = ways(bundle, options.compile)
        with FlopCounterMode(display=False) as counter:
            steps["float32"]()
        work = counter.get_total_flops() / 1e9
        print(f"\n{bundle}: a step of {count} crops, {work:.0f} GFLOP")
        print("\n| step | seconds, least | GFLOP/s |\n|---|---|---|")
        times: dict[str, list[float]] = {name: [] for name in steps}
        for step in steps.values():
            step()
        for _ in range(options.repeats):
            for name, step in steps.items():
                times[name].append(seconds(step))
        for name, taken in times.items():
            print(f"| {name} | {min(taken):.2f} | {work / min(taken):.0f} |")
        if not (DATA / "participants.tsv").is_file():
            print("\nno data pack: the share of the data is not measured (DIFFENS_DATA)")
            continue
        config = training_config(bundle)
        cut, vary = data_seconds(bundle, options.repeats)
        of_data = config["batch_size"] * cut + config["refresh"] / config["iterations"] * vary
        share = min(times["bf16"]) / (min(times["bf16"]) + of_data)
        print(f"\ncrops {config['batch_size'] * cut:.3f} s a step, a varied volume {vary:.1f} s", end="; ")
        print(f"{100 * share:.0f} % of the time is the step's")


if __name__ == "__main__":
    main()

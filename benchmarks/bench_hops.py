"""How far one inference jumps through the code: frames of a denoising pass, and hops between files.

    python benchmarks/bench_hops.py

It restores a small volume, measured in thick slices, in one pass, by an untrained model of the shipped
configuration, and watches every call of Python. Counted are functions of the package alone; those of
libraries in between are passed over.

- hops: calls from one file of the package to another.
- frames: functions that are open at once at the deepest place of a pass, from the loop's function on.
- whole: the same, from the inferer's call on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from monai.data import MetaTensor

import monai_diffens
from monai_diffens.acquisition.measurement import Measurement
from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from monai_diffens.inferers.sampling import sample
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler
from monai_diffens.transforms.thick_slices import measurement_for, record_sampling

PACKAGE = str(Path(monai_diffens.__file__).parent)
SHAPE = (48, 56, 40)


def scan() -> MetaTensor:
    """A ball (1, 1, X, Y, Z) in slices 4 mm thick, and how they were measured."""
    axes = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in SHAPE), indexing="ij")
    measurement: Measurement = measurement_for(SHAPE, (1, 1, 4))
    ball = (sum(axis**2 for axis in axes) < 0.8)[None].float()
    volume = MetaTensor(measurement.restore(measurement(ball)))
    record_sampling(volume, measurement)
    return volume[None]  # type: ignore[return-value]


def watched(run: Callable[[], Any]) -> dict[str, int]:
    """Counts of one run."""
    open_files: list[str] = []
    counts = {"hops": 0, "frames": 0, "whole": 0}
    loop = [0]  # functions open around the loop's

    def note(frame: FrameType, event: str, _: Any) -> None:
        file = frame.f_code.co_filename
        if event not in ("call", "return") or not file.startswith(PACKAGE):
            return
        if event == "return":
            open_files.pop()
            return
        if frame.f_code is sample.__code__:
            loop[0] = len(open_files)
        counts["hops"] += bool(open_files) and open_files[-1] != file
        open_files.append(file)
        if loop[0]:
            counts["whole"] = max(counts["whole"], len(open_files))
            counts["frames"] = max(counts["frames"], len(open_files) - loop[0])

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return counts


def counted() -> dict[str, int]:
    """Hops and frames of one inference."""
    network = DiffEnsembler().eval()
    inferer = DiffEnsemblerInferer.of(TrailingDDIMScheduler(), num_steps=1, progress=False)
    inputs = scan()
    return watched(lambda: inferer(inputs, network))


if __name__ == "__main__":
    print(json.dumps(counted()))

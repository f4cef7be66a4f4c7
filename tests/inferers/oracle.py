"""A network that knows the answer, and scans for the tests of the inferer."""

import numpy as np
import torch
from monai.data import MetaTensor, list_data_collate

from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from monai_diffens.networks.diff_ensembler import DiffEnsembler, FusedPrediction
from monai_diffens.schedulers.arithmetic import from_clean
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler
from monai_diffens.target import ResidualTarget
from monai_diffens.transforms.thick_slices import thick_slice

SIZE = (20, 24, 28)
SCALE = 0.07


class Oracle:
    """A network that answers with the clean sample that ``clean(x_t, conditions)`` names."""

    def __init__(self, scheduler, clean) -> None:
        self.scheduler, self.clean = scheduler, clean
        self.calls: list[tuple[torch.Size, str, int, bool]] = []

    check_fusion = DiffEnsembler.check_fusion
    planes = expert_names = expert_planes = ("axial", "coronal", "sagittal")
    named_groups = ()

    def emphasis(self, plane_weights) -> None:
        assert plane_weights is None

    def taking_part(self, conditions, fusion, step, emphasis) -> torch.Tensor:
        self.asked = fusion, step
        return torch.ones(1, 1, dtype=torch.bool)

    def bank(self, x_t, conditions, timesteps, present, boxes, empty, target) -> torch.Tensor:
        self.calls.append((x_t.shape, *self.asked, torch.is_autocast_enabled("cpu")))
        level = float(self.scheduler.alphas_cumprod[int(timesteps[0])])
        clean = self.clean(x_t, conditions)
        return from_clean(clean, x_t, level, self.scheduler.prediction_type)

    def fuse(self, x_t, conditions, predictions, *_) -> FusedPrediction:
        return FusedPrediction(predictions, torch.ones(1))


def knows_the_truth(x_t: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
    """The residual to the truth, which is handed over as the second condition."""
    return (conditions[:, 1:] - conditions[:, :1]) / SCALE


def repeats_the_noise(x_t: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
    return x_t


def infer(scheduler=None, **options) -> DiffEnsemblerInferer:
    options = {
        "num_steps": 2,
        "progress": False,
        "amp": False,
        "target": ResidualTarget(scale=SCALE),
    } | options
    return DiffEnsemblerInferer.of(scheduler or TrailingDDIMScheduler(), **options)


def head(case: str, factors=(1, 1, 4), seed: int = 0) -> MetaTensor:
    """A thick-sliced ball on 0, (1, X, Y, Z), that remembers how it was sliced."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.meshgrid(*(torch.linspace(-1.3, 1.3, n) for n in SIZE), indexing="ij")
    volume = (sum(axis**2 for axis in grid) < 1) * (0.4 + 0.5 * torch.rand(SIZE, generator=generator))
    meta = {"filename_or_obj": f"/scans/{case}.nii.gz"}
    return thick_slice(MetaTensor(volume[None], affine=np.diag([1, 2, 3, 1.0]), meta=meta), factors)


def collate(*volumes: MetaTensor) -> MetaTensor:
    """A batch as MONAI's DataLoader makes it."""
    return list_data_collate([{"image": volume} for volume in volumes])["image"]

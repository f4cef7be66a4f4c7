"""Training pass of one expert network that serves several condition groups."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import Inferer
from monai.networks.schedulers import Scheduler
from torch import Tensor

from monai_diffens.networks.plane_denoiser import PlaneDenoiser


class GroupDiffusionInferer(Inferer):
    """MONAI's DiffusionInferer in mode "concat", which has no way to pass class labels, with them.

    Args:
        scheduler: noise schedule.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self.scheduler = scheduler

    def __call__(  # type: ignore[override]
        self,
        inputs: Tensor,
        network: PlaneDenoiser,
        noise: Tensor,
        timesteps: Tensor,
        condition: Tensor,
        class_labels: Tensor,
        mode: str = "concat",
    ) -> Tensor:
        """Predict from noised clean samples.

        Args:
            inputs: (N, 1, H, W) clean samples.
            network: the expert.
            noise: of the shape of ``inputs``.
            timesteps: (N,).
            condition: (N, C, H, W) condition slices.
            class_labels: (N,) condition group of each slice.
            mode: "concat", as :class:`ResidualVelocityPrepareBatch` says.
        """
        noisy: Any = self.scheduler.add_noise(original_samples=inputs, noise=noise, timesteps=timesteps)
        return network(torch.cat([noisy, condition], dim=1), timesteps, None, class_labels)

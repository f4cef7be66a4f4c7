"""What one training iteration feeds the network: residual, noise, timesteps and target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.engines.utils import PrepareBatch
from monai.networks.schedulers import Scheduler
from torch import Tensor

from monai_diffens.inferers.residual import RESIDUAL_SCALE, target_base, to_residual
from monai_diffens.transforms.plane_slices import GROUP_KEY


class ResidualVelocityPrepareBatch(PrepareBatch):
    """Prepare v-prediction of the residual (label - image) / residual_scale for MONAI's DiffusionInferer.

    MONAI's ``VPredictionPrepareBatch`` diffuses the image itself and leaves the inferer in cross-attention
    mode; here the residual to the condition is diffused, the condition is concatenated, and timesteps are
    stratified over the batch, which lowers the variance of the loss.

    Args:
        scheduler: noise schedule, shared with the inferer.
        residual_scale: divisor that brings residuals near unit variance.
        noise_emphasis: 1 draws timesteps uniformly, above 1 more of the noisy ones.
        centre_channel: channel of ``image`` that the base is taken from (2.5D: the middle slice).
        base: what the residual is taken to, see :func:`target_base`.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        residual_scale: float = RESIDUAL_SCALE,
        noise_emphasis: float = 3.0,
        centre_channel: int = 2,
        base: str = "condition",
    ) -> None:
        self.noise_emphasis = noise_emphasis
        self.scheduler = scheduler
        self.residual_scale = residual_scale
        self.centre_channel = centre_channel
        self.base = base

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple[()], dict[str, Any]]:
        """Return residual, velocity target, no arguments, and the inferer's keyword arguments."""
        image = batchdata["image"].to(device, non_blocking=non_blocking)
        label = batchdata["label"].to(device, non_blocking=non_blocking)
        centre = image[:, self.centre_channel : self.centre_channel + 1]
        residual = to_residual(label, target_base(centre, self.base), self.residual_scale)
        noise = torch.randn_like(residual)
        timesteps = self.stratified_timesteps(residual.shape[0]).to(residual.device)
        target = self.scheduler.get_velocity(residual, noise, timesteps)
        arguments = {"noise": noise, "timesteps": timesteps, "condition": image, "mode": "concat"}
        if GROUP_KEY in batchdata:  # one network serves several condition groups
            arguments["class_labels"] = torch.as_tensor(batchdata[GROUP_KEY], device=image.device)
        return residual, target, (), arguments

    def stratified_timesteps(self, batch_size: int) -> Tensor:
        """(batch_size,) timesteps, one from each of as many strata, denser towards pure noise.

        Few-step samplers work where noise dominates; at small t the sample shows the answer, and
        v-prediction only learns to copy the noise.
        """
        strata = (torch.arange(batch_size) + torch.rand(batch_size)) / batch_size
        steps = ((1 - (1 - strata) ** self.noise_emphasis) * self.scheduler.num_train_timesteps).long()
        return steps.clamp(max=self.scheduler.num_train_timesteps - 1)

"""What one training iteration feeds the network: residual, noise, timesteps and target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.engines.utils import PrepareBatch
from monai.networks.schedulers import Scheduler
from torch import Tensor

from monai_diffens.schedulers.arithmetic import stratum_timesteps
from monai_diffens.target import ResidualTarget
from monai_diffens.transforms.plane_slices import GROUP_KEY


class ResidualVelocityPrepareBatch(PrepareBatch):
    """Prepare v-prediction of the residual (label - base) / scale for MONAI's DiffusionInferer.

    MONAI's ``VPredictionPrepareBatch`` diffuses the image itself and leaves the inferer in cross-attention
    mode; here the residual to the condition is diffused, the condition is concatenated, and timesteps are
    stratified over the batch, which lowers the variance of the loss.

    Args:
        scheduler: noise schedule, shared with the inferer.
        target: what is diffused.
        noise_emphasis: see :func:`~monai_diffens.schedulers.arithmetic.stratum_timesteps`.
        centre_channel: channel of ``image`` that the base is taken from (2.5D: the middle slice); of several
            conditions that of each.
        prior_stds: those of :class:`~monai_diffens.networks.plane_denoiser.PlaneDenoiser`. The target then
            comes with the variance its prior leaves, (N,), for a loss relative to it: without, the group
            whose condition says most would be learned least.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        target: ResidualTarget | None = None,
        noise_emphasis: float = 3.0,
        centre_channel: int | Sequence[int] = 2,
        prior_stds: Sequence[float] | None = None,
    ) -> None:
        self.prior_stds = prior_stds
        self.noise_emphasis = noise_emphasis
        self.scheduler = scheduler
        self.target = target or ResidualTarget()

        self.centre_channels = [centre_channel] if isinstance(centre_channel, int) else list(centre_channel)

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | tuple[Tensor, Tensor], tuple[()], dict[str, Any]]:
        """Return residual, velocity target (with its variance), no arguments, and the inferer's arguments."""
        image = batchdata["image"].to(device, non_blocking=non_blocking)
        label = batchdata["label"].to(device, non_blocking=non_blocking)
        centre = image[:, self.centre_channels]
        residual = self.target.to_residual(label, self.target.base_of(centre))
        noise = torch.randn_like(residual)
        timesteps = self.stratified_timesteps(residual.shape[0]).to(residual.device)
        target = self.scheduler.get_velocity(residual, noise, timesteps)
        arguments = {"noise": noise, "timesteps": timesteps, "condition": image, "mode": "concat"}
        if GROUP_KEY in batchdata:  # one network serves several condition groups
            arguments["class_labels"] = torch.as_tensor(batchdata[GROUP_KEY], device=image.device)
        if self.prior_stds is not None:
            std = torch.tensor(self.prior_stds, device=image.device)[arguments["class_labels"]]
            known = self.scheduler.alphas_cumprod.to(image.device)[timesteps] * (1 - std**2)
            return residual, (target, std**2 / (1 - known)), (), arguments
        return residual, target, (), arguments

    def stratified_timesteps(self, batch_size: int) -> Tensor:
        """(batch_size,) timesteps, one from each of as many strata."""
        strata = (torch.arange(batch_size) + torch.rand(batch_size)) / batch_size
        return stratum_timesteps(strata, self.scheduler.num_train_timesteps, self.noise_emphasis)

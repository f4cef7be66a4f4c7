"""Training of one 2D expert: what an iteration feeds it, its pass, and its validation by whole volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.engines.utils import PrepareBatch
from monai.inferers import Inferer
from monai.networks.schedulers import Scheduler
from torch import Tensor, nn

from monai_diffens.acquisition.slicing import PLANES
from monai_diffens.networks.computation import computes_in_bf16
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.plane_denoiser import PlaneDenoiser
from monai_diffens.schedulers.arithmetic import stratum_timesteps
from monai_diffens.target import ResidualTarget
from monai_diffens.transforms.augmentation import GROUP_KEY


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
    """

    def __init__(
        self,
        scheduler: Scheduler,
        target: ResidualTarget | None = None,
        noise_emphasis: float = 3.0,
        centre_channel: int | Sequence[int] = 2,
    ) -> None:
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
    ) -> tuple[Tensor, Tensor, tuple[()], dict[str, Any]]:
        """Return residual, velocity target, no arguments, and the inferer's arguments."""
        image = batchdata["image"].to(device, non_blocking=non_blocking)
        label = batchdata["label"].to(device, non_blocking=non_blocking)
        centre = image[:, self.centre_channels]
        residual = self.target.to_residual(label, self.target.base_of(centre))
        noise = torch.randn_like(residual)
        timesteps = self.stratified_timesteps(residual.shape[0]).to(residual.device)
        target = self.scheduler.get_velocity(residual, noise, timesteps)
        arguments = {"noise": noise, "timesteps": timesteps, "condition": image, "mode": "concat"}
        if GROUP_KEY in batchdata:  # one network makes several targets
            arguments["class_labels"] = torch.as_tensor(batchdata[GROUP_KEY], device=image.device)
        return residual, target, (), arguments

    def stratified_timesteps(self, batch_size: int) -> Tensor:
        """(batch_size,) timesteps, one from each of as many strata."""
        strata = (torch.arange(batch_size) + torch.rand(batch_size)) / batch_size
        return stratum_timesteps(strata, self.scheduler.num_train_timesteps, self.noise_emphasis)


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
            class_labels: (N,) target of each slice.
            mode: "concat", as :class:`ResidualVelocityPrepareBatch` says.
        """
        noisy: Any = self.scheduler.add_noise(original_samples=inputs, noise=noise, timesteps=timesteps)
        return network(torch.cat([noisy, condition], dim=1), timesteps, None, class_labels)


class AutocastInferer(Inferer):
    """Run another inferer in bf16 where the processor computes in it.

    MONAI's trainer autocasts on GPUs alone. bf16 has the exponents of float32: no gradient has to be scaled.
    Not for training 3D networks on a processor: torch 2.13's bf16 gradients of small 3D convolutions read
    memory that nobody wrote (NaN where it held one). 2D convolutions and predictions never did when tried.

    Args:
        inferer: what is run.
        amp: see :func:`computes_in_bf16`; a GPU's precision is left to the trainer.
    """

    def __init__(self, inferer: Inferer, amp: bool | str = "auto") -> None:
        super().__init__()
        self.inferer = inferer
        self.amp = amp

    def __call__(  # type: ignore[override]
        self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any
    ) -> Any:
        """Return what the inferer returns, tensors in float32 on a processor."""
        if inputs.device.type != "cpu" or not computes_in_bf16(self.amp, "cpu"):
            return self.inferer(inputs, network, *args, **kwargs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.inferer(inputs, network, *args, **kwargs).float()


def plane_ensemble(
    denoiser: PlaneDenoiser,
    planes: str | Sequence[str] = PLANES,
    conditions: Sequence[str] = ("image",),
    target: int = 0,
) -> DiffEnsembler:
    """Model whose expert of every plane is ``denoiser`` itself, and whose fusion is their mean.

    Args:
        denoiser: shared, not copied: what trains on is what is validated.
        planes: plane or planes that it is trained on.
        conditions: the conditions that it tells apart, or sees together (a joint expert).
        target: of a joint expert, number of the contrast to make.
    """
    names = (planes,) if isinstance(planes, str) else tuple(planes)
    small: dict[str, Any] = {
        "channels": (8,),
        "norm_num_groups": 4,
        "num_head_channels": 8,
    }  # replaced at once
    if denoiser.conditions > 1:
        reach = (denoiser.condition_channels // denoiser.conditions - 1) // 2
        small |= {"reach": reach, "num_class_embeds": 1}
    network = DiffEnsembler(
        planes=names, conditions=conditions, calibrator_channels=(8,), fusion="mean", **small
    )
    network.bank.target = target
    network.bank.experts = nn.ModuleList([denoiser for _ in names])
    return network

"""The 3D baseline of an evaluation: MONAI's 3D DiffusionModelUNet behind a patch stem, in windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import Scheduler
from torch import Tensor, nn

from monai_diffens.acquisition.slicing import from_patches, pad_end, to_patches
from monai_diffens.inferers.region import on_patch_grid
from monai_diffens.networks.predictions import EmptySpace, FusedPrediction
from research.baselines.detail import detail_patches


class VolumeDenoiser(nn.Module):
    """3D conditional denoiser of one condition, with what :class:`PlaneDenoiser` has but 2D planes.

    The same patch stem, x_t as alpha_t x_t, amplified detail, noise schedule and prediction; nothing is
    fused. :class:`~monai_diffens.inferers.inferer.DiffEnsemblerInferer` drives it as one expert.

    Args:
        channels: width of each level of the U-Net.
        num_res_blocks: residual blocks a level.
        stem: side of the patch that becomes one position.
        norm_num_groups: groups of the group normalisation.
        num_head_channels: channels a head of the middle block's self-attention.
        detail_gain: amplification of the condition's detail.
        window: side of the windows of :meth:`predict`, in voxels, that of the training's crops: group
            normalisation and attention depend on it.
        overlap: of neighbouring windows.
        schedule: noise schedule it is trained for, a name in MONAI's NoiseSchedules.
        num_train_timesteps: length of the schedule.
    """

    num_experts = 1
    planes: tuple[str, ...] = ()

    def __init__(
        self,
        channels: tuple[int, ...] = (96, 96, 112),
        num_res_blocks: int = 1,
        stem: int = 4,
        norm_num_groups: int = 16,
        num_head_channels: int = 16,
        detail_gain: float = 10.0,
        window: int = 64,
        overlap: float = 0.375,
        schedule: str = "cosine",
        num_train_timesteps: int = 1000,
    ) -> None:
        super().__init__()
        signal = Scheduler(num_train_timesteps, schedule).alphas_cumprod ** 0.5
        self.register_buffer("signal_level", signal, persistent=False)
        self.stem = stem
        self.detail_gain = detail_gain
        self.window = window
        self.overlap = overlap
        self.divisor = stem * 2 ** (len(channels) - 1)
        self.unet = DiffusionModelUNet(
            spatial_dims=3,
            in_channels=2 * stem**3 + 1,
            out_channels=stem**3,
            channels=channels,
            num_res_blocks=num_res_blocks,
            attention_levels=(False,) * len(channels),
            norm_num_groups=norm_num_groups,
            num_head_channels=num_head_channels,
        )

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor | None = None) -> Tensor:
        """Predict a whole crop from cat[x_t, condition].

        Args:
            x: (B, 2, X, Y, Z), any size; it is padded inside to what stem and levels need.
            timesteps: (B,), or (1,) for all.
            context: unused; MONAI's DiffusionInferer passes it.

        Returns:
            (B, 1, X, Y, Z), in the prediction type it was trained for.
        """
        shape = x.shape[2:]
        x = pad_end(x, self.divisor)
        timesteps = timesteps.expand(x.shape[0])
        signal = self.signal_level[timesteps.long()]  # type: ignore[index]
        x_t = signal.to(x.dtype)[:, None, None, None, None] * x[:, :1]
        detail = detail_patches(x[:, 1:], self.stem, self.detail_gain)
        left = self.unet(torch.cat([to_patches(x_t, self.stem), detail], dim=1), timesteps)
        return from_patches(left, self.stem)[..., : shape[0], : shape[1], : shape[2]]

    def predict(
        self,
        x_t: Tensor,
        conditions: Tensor,
        timesteps: Tensor,
        fusion: str = "mean",
        step: int = 0,
        emphasis: Tensor | None = None,
        project: Callable[[Tensor], Tensor] | None = None,
        empty: EmptySpace | None = None,
    ) -> FusedPrediction:
        """Predict volumes of any size in windows, as :meth:`DiffEnsembler.predict` does with one expert.

        Args:
            x_t: (B, 1, X, Y, Z).
            conditions: (B, 1, X, Y, Z).
            timesteps: (B,).
            fusion: "mean", see :meth:`check_fusion`.
            step: unused.
            emphasis: unused, there is one expert.
            project: what the prediction (B, 1, X, Y, Z) passes.
            empty: unused, there are no slices.
        """
        x = torch.cat([x_t, conditions], dim=1)
        run = partial(self, timesteps=timesteps[:1])
        prediction = on_patch_grid(x, run, self.window, self.overlap)
        if project is not None:
            prediction = project(prediction)
        weight = prediction.new_ones(1, 1, 1, 1, 1)
        return FusedPrediction(prediction, weight, torch.zeros_like(weight))

    def check_fusion(self, fusion: str) -> None:
        """Raise ValueError where ``fusion`` is not "mean"."""
        if fusion != "mean":
            raise ValueError(f"unknown fusion '{fusion}': one expert alone has mean")

    def emphasis(
        self,
        condition_weights: Mapping[str, float] | None = None,
        plane_weights: Mapping[str, float] | None = None,
    ) -> Tensor | None:
        """None: there is nothing to weigh.

        Raises:
            ValueError: when weights are given.
        """
        if condition_weights or plane_weights:
            raise ValueError("condition_weights and plane_weights: one expert has none")
        return None

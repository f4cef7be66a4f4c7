"""The 2D expert: MONAI's DiffusionModelUNet behind a patch stem, one a plane."""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.schedulers import Scheduler
from torch import Tensor, nn

from monai_diffens.acquisition.slicing import from_slice_patches, to_slice_patches
from monai_diffens.networks.computation import computed_type
from monai_diffens.networks.scriptable_unet import ScriptableUNet


class PlaneDenoiser(nn.Module):
    """2D conditional denoiser of one anatomical plane.

    The slice and its condition slices pass a pixel-unshuffle stem: at equal width a patch of ``stem``
    quarters (2) or sixteenths (4) the cost of a pass. Any slice size is accepted; it is padded inside
    to what stem and levels need.

    Args:
        condition_channels: channels of the condition, neighbours included (2.5D: 5 a condition volume).
        conditions: volumes that these channels show, one behind the other. Of several (a joint expert) any
            may be absent: as many channels behind them say which are there.
        channels: width of each level of the U-Net.
        stem: side of the patch that becomes one position.
        num_class_embeds: number of targets when one network makes several, else None.
        detail_gain: amplification of the condition's detail. The residual depends on detail of a few per
            cent of the condition's range, beside noise of unit variance; amplified against the patch mean of
            the middle slice it is learned many times sooner.
        schedule: noise schedule it is trained for, a name in MONAI's NoiseSchedules, and its length.
        **unet: further arguments of MONAI's DiffusionModelUNet.
    """

    def __init__(
        self,
        condition_channels: int = 5,
        conditions: int = 1,
        channels: tuple[int, ...] = (48, 96, 128),
        stem: int = 4,
        num_class_embeds: int | None = None,
        detail_gain: float = 10.0,
        schedule: tuple[str, int] = ("cosine", 1000),
        **unet: Any,
    ) -> None:
        super().__init__()
        if condition_channels % conditions:
            raise ValueError(f"{condition_channels} channels are no whole number for {conditions} conditions")
        self.stem = stem
        self.condition_channels = condition_channels
        self.conditions = conditions
        self.divisor = stem * 2 ** (len(channels) - 1)  # of the sides that slices are padded to
        self.detail_gain = detail_gain
        signal = Scheduler(schedule[1], schedule[0]).alphas_cumprod ** 0.5
        self.register_buffer("signal_level", signal, persistent=False)
        options = {"num_res_blocks": 1, "norm_num_groups": 16, "num_head_channels": 32} | unet
        self.unet = ScriptableUNet(
            spatial_dims=2,
            in_channels=(1 + condition_channels) * stem**2 + conditions * (1 if conditions == 1 else 2),
            out_channels=stem**2,
            channels=channels,
            attention_levels=(False,) * len(channels),
            num_class_embeds=num_class_embeds,
            **options,
        )

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, class_labels: Tensor | None = None
    ) -> Tensor:
        """Predict from cat[x_t, condition slices], of a joint expert cat[x_t, condition slices, presence].

        Args:
            x: (N, 1 + condition_channels, H, W); ``conditions`` channels more of a joint expert, each 1
                everywhere where that condition is there, else 0.
            timesteps: (N,).
            context: unused; MONAI's DiffusionInferer passes it.
            class_labels: (N,) target, when built with ``num_class_embeds``.

        Returns:
            (N, 1, H, W), in the prediction type it was trained for.
        """
        present = x[:, 1 + self.condition_channels :, 0, 0]
        patches = to_slice_patches(x[:, : 1 + self.condition_channels], self.stem, self.divisor)
        condition = [patches[:, 1 + k] for k in range(self.condition_channels)]
        h = self.read(patches[:, 0], condition, timesteps, present)
        output = self.unet(h, timesteps, None, class_labels)
        return self.leave(output)[..., : x.shape[2], : x.shape[3]]

    def predict_runs(
        self,
        slices: list[Tensor],
        around: list[Tensor],
        timesteps: Tensor,
        class_labels: Tensor,
        present: Tensor,
    ) -> list[Tensor]:
        """Predict runs of neighbouring slices of a volume as :meth:`forward`, in one pass.

        A slice is cut into patches once, for all of which it is a neighbour.

        Args:
            slices: of each run, x_t (n, 1, H, W); the size is that of all runs.
            around: of each run, the conditions' slices from the first one's neighbours to the last one's,
                (n + condition_channels / conditions - 1, conditions, H, W).
            timesteps: (1,), or (N,) of all slices.
            class_labels: likewise; of no account unless built with ``num_class_embeds``.
            present: likewise (1, conditions) or (N, conditions): what of a joint expert's is there.

        Returns:
            For each run its prediction (n, 1, H, W).
        """
        sizes = [run.shape[0] for run in slices]
        single = timesteps.shape[0] == 1
        inputs: list[Tensor] = []
        begin = 0
        for i, size in enumerate(sizes):
            patches = to_slice_patches(slices[i], self.stem, self.divisor)[:, 0]
            shown = to_slice_patches(around[i], self.stem, self.divisor)
            condition: list[Tensor] = []
            for number in range(self.conditions):
                for k in range(shown.shape[0] - size + 1):
                    condition.append(shown[k : k + size, number])
            end = 1 if single else begin + size
            inputs.append(self.read(patches, condition, timesteps[begin:end], present[begin:end]))
            begin = 0 if single else end
        joined = inputs[0] if len(inputs) == 1 else torch.cat(inputs)
        output = self.unet(joined, timesteps, None, class_labels)
        predictions: list[Tensor] = []
        for i, part in enumerate(output.split(sizes)):
            predictions.append(self.leave(part)[..., : slices[i].shape[2], : slices[i].shape[3]])
        return predictions

    def read(self, x_t: Tensor, condition: list[Tensor], timesteps: Tensor, present: Tensor) -> Tensor:
        """What the U-Net reads.

        x_t enters as alpha_t x_t, the best linear guess of the clean sample: where it is noise alone it is
        silent, instead of drowning the condition. Each condition's slices follow, less the patch mean of its
        middle slice and amplified, of several whether it is there, and that mean. An absent one is silent.

        Args:
            x_t: patches (N, h, w, stem^2), padded.
            condition: those of each condition slice, neighbours included; volume by volume.
            timesteps: (N,), or (1,) for all.
            present: (N, conditions), or (1, conditions) for all: 1 where a volume is there, 0 where not; of
                no account where there is one volume alone.

        Returns:
            The U-Net's input (N, channels, h, w).
        """
        alpha = self.signal_level[timesteps.long()]  # type: ignore[index]
        alpha = alpha.to(x_t.dtype)[:, None, None, None]
        dtype = computed_type(x_t)  # cast before it is laid side by side: half as much is moved
        slices = len(condition) // self.conditions
        channels = [(alpha * x_t).to(dtype)]
        for number in range(self.conditions):
            shown = condition[number * slices : (number + 1) * slices]
            mean = shown[slices // 2].mean(dim=3, keepdim=True)
            base = mean * -self.detail_gain
            for patches in shown:  # the mean is taken off and the rest amplified in one pass
                channels.append(torch.add(base, patches, alpha=self.detail_gain).to(dtype))
            level = 2 * mean - 1
            if self.conditions > 1:
                there = present[:, number].to(mean.dtype)[:, None, None, None]
                level = level * there
                channels.append(there.expand_as(mean).to(dtype))
            channels.append(level.to(dtype))
        return torch.cat(channels, dim=3).permute(0, 3, 1, 2)

    def leave(self, output: Tensor) -> Tensor:
        """The prediction (N, 1, H, W), padded, of the U-Net's output (N, stem^2, h, w)."""
        return from_slice_patches(output.permute(0, 2, 3, 1), self.stem)

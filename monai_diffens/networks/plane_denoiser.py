"""The 2D expert: MONAI's DiffusionModelUNet behind a patch stem, one per plane and condition group."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.nets.diffusion_model_unet import get_timestep_embedding
from monai.networks.schedulers import Scheduler
from torch import Tensor, nn

from monai_diffens.networks.scriptable_unet import ScriptableUNet, in_fast_layout
from monai_diffens.networks.slicing import as_computed


class PlaneDenoiser(nn.Module):
    """2D conditional denoiser of one anatomical plane.

    The slice and its condition slices pass a pixel-unshuffle stem: at equal width a patch of ``stem``
    quarters (2) or sixteenths (4) the cost of a pass. Any slice size is accepted; it is padded inside
    to what stem and levels need.

    Args:
        condition_channels: channels of the condition, neighbours included (2.5D: 5 a condition volume).
        channels: width of each level of the U-Net.
        num_res_blocks: residual blocks a level.
        stem: side of the patch that becomes one position.
        norm_num_groups: groups of the group normalisation.
        num_head_channels: channels a head of the middle block's self-attention.
        num_class_embeds: number of condition groups when one network serves several, else None.
        detail_gain: amplification of the condition's detail, see :meth:`stem_input`.
        prior_stds: what is known of the clean sample before any pass, a number a condition group: 1 knows
            nothing; below 1 the sample lies that far (standard deviation) about the condition itself, taken
            as a residual to the brain, see :meth:`prior_mean`. 1 for every group when None.
        prior_scale: divisor of the training's residuals, needed with ``prior_stds``.
        schedule: noise schedule it is trained for, a name in MONAI's NoiseSchedules.
        num_train_timesteps: length of the schedule.
    """

    def __init__(
        self,
        condition_channels: int = 5,
        channels: tuple[int, ...] = (48, 96, 128),
        num_res_blocks: int = 1,
        stem: int = 4,
        norm_num_groups: int = 16,
        num_head_channels: int = 32,
        num_class_embeds: int | None = None,
        detail_gain: float = 10.0,
        prior_stds: Sequence[float] | None = None,
        prior_scale: float = 1.0,
        schedule: str = "cosine",
        num_train_timesteps: int = 1000,
    ) -> None:
        super().__init__()
        signal = Scheduler(num_train_timesteps, schedule).alphas_cumprod ** 0.5
        self.register_buffer("signal_level", signal, persistent=False)
        self.stem = stem
        self.detail_gain = detail_gain
        self.has_prior = prior_stds is not None
        self.register_buffer("prior_stds", torch.tensor(prior_stds or [1.0]), persistent=False)
        self.prior_scale = prior_scale
        self.divisor = stem * 2 ** (len(channels) - 1)
        self.base_channels = channels[0]
        self.feature_channels = tuple(reversed(channels))
        # voxels a position of each feature map spans; every decoder block but the last ends with upsampling
        self.feature_strides = tuple(
            stem * 2 ** max(level - 1, 0) for level in reversed(range(len(channels)))
        )
        self.unet = ScriptableUNet(
            spatial_dims=2,
            in_channels=(1 + condition_channels) * stem**2 + 1,
            out_channels=stem**2,
            channels=channels,
            num_res_blocks=num_res_blocks,
            attention_levels=(False,) * len(channels),
            norm_num_groups=norm_num_groups,
            num_head_channels=num_head_channels,
            num_class_embeds=num_class_embeds,
        )

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, class_labels: Tensor | None = None
    ) -> Tensor:
        """Predict from cat[x_t, condition slices].

        Args:
            x: (N, 1 + condition_channels, H, W).
            timesteps: (N,).
            context: unused; MONAI's DiffusionInferer passes it.
            class_labels: (N,) condition group, when built with ``num_class_embeds``.

        Returns:
            (N, 1, H, W), in the prediction type it was trained for.
        """
        return self.predict_with_features(x, timesteps, class_labels)[0]

    def stem_input(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """Patches of x_t and of the condition's detail, and the condition's patch mean.

        x_t enters as alpha_t x_t, the best linear guess of the clean sample: where it is noise alone it
        is silent, instead of drowning the condition.

        The residual depends on detail of a few per cent of the condition's range, beside noise of unit
        variance; amplified against the patch mean of the middle slice it is learned many times sooner.
        """
        signal = self.signal_level[timesteps.long()]  # type: ignore[index]
        signal = signal.to(x.dtype)[:, None, None, None]
        x_t, condition = signal * x[:, :1], x[:, 1:]
        middle = condition.shape[1] // 2
        mean = F.avg_pool2d(condition[:, middle : middle + 1], self.stem)
        base = F.interpolate(mean, scale_factor=float(self.stem), mode="nearest")
        # taken off and amplified in one pass over the slices
        amplified = torch.add(base * -self.detail_gain, condition, alpha=self.detail_gain)
        detail = F.pixel_unshuffle(as_computed(amplified), self.stem)
        patches = F.pixel_unshuffle(as_computed(x_t), self.stem)
        return torch.cat([patches, detail, as_computed(2 * mean - 1)], dim=1)

    def prior_mean(self, x: Tensor, stds: Tensor) -> Tensor:
        """Clean sample to expect, (N, 1, H, W).

        The middle condition slice as a residual to the brain (base "brain" of the training) where a group's
        prior is narrow, else 0.

        Args:
            x: (N, 1 + condition_channels, H, W).
            stds: (N, 1, 1, 1) of the priors.
        """
        condition = x[:, 1 + (x.shape[1] - 1) // 2].unsqueeze(1)
        anchored = (condition - (condition > 0).to(x.dtype)) / self.prior_scale
        return torch.where(stds < 1, anchored, torch.zeros_like(anchored))

    def predict_with_features(
        self, x: Tensor, timesteps: Tensor, class_labels: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Predict, and return the decoder's feature maps, coarsest first.

        MONAI's ``DiffusionModelUNet.forward`` keeps its decoder maps to itself, and a hook would not
        script, so its blocks are called here in its own order.

        Returns:
            The prediction (N, 1, H, W) and one map (N, channels, H / s, W / s) a level.
        """
        height, width = x.shape[-2], x.shape[-1]
        pad_h, pad_w = -height % self.divisor, -width % self.divisor
        x = F.pad(x, (0, pad_w, 0, pad_h))
        expected, gain = x.new_zeros(1), x.new_ones(1)
        if self.has_prior and class_labels is not None:
            # Karras et al., arXiv 2206.00364, about a prior mean and for v: the network predicts what is left
            # of v, at unit variance. At std 1 and mean 0 this is v itself.
            std = self.prior_stds[class_labels].to(x.dtype)[:, None, None, None]  # type: ignore[index]
            alpha = self.signal_level[timesteps.long()].to(x.dtype)[:, None, None, None]  # type: ignore[index]
            sigma, variance = (1 - alpha**2) ** 0.5, 1 - alpha**2 * (1 - std**2)
            mean = self.prior_mean(x, std)
            deviation = x[:, :1] - alpha * mean
            expected = alpha * sigma * (1 - std**2) / variance * deviation - sigma * mean
            gain = std / variance**0.5
            x = torch.cat([deviation * std / variance, x[:, 1:]], dim=1)
        h = self.stem_input(x, timesteps)

        emb = self.unet.time_embed(get_timestep_embedding(timesteps, self.base_channels).to(h.dtype))
        if self.unet.num_class_embeds is not None:
            if class_labels is None:
                raise ValueError("class_labels are needed: built with num_class_embeds")
            emb = emb + self.unet.class_embedding(class_labels).to(h.dtype)
        h = self.unet.conv_in(in_fast_layout(h, h.shape[2] * h.shape[3]))
        skips: list[Tensor] = [h]
        for down_block in self.unet.down_blocks:
            h, outputs = down_block(hidden_states=h, temb=emb, context=None)
            for output in outputs:
                skips.append(output)
        h = self.unet.middle_block(hidden_states=h, temb=emb, context=None)
        features: list[Tensor] = []
        for up_block in self.unet.up_blocks:
            count: int = len(up_block.resnets)  # type: ignore[arg-type]
            h = up_block(hidden_states=h, res_hidden_states_list=skips[-count:], temb=emb, context=None)
            skips = skips[:-count]
            features.append(h)
        prediction = expected + gain * F.pixel_shuffle(self.unet.out(h), self.stem)
        return prediction[..., :height, :width], features

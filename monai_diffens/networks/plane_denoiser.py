"""The 2D expert: MONAI's DiffusionModelUNet behind a patch stem, one per plane and condition group."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.networks.nets import DiffusionModelUNet
from monai.networks.nets.diffusion_model_unet import get_timestep_embedding
from torch import Tensor, nn


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
    ) -> None:
        super().__init__()
        self.stem = stem
        self.divisor = stem * 2 ** (len(channels) - 1)
        self.base_channels = channels[0]
        self.feature_channels = tuple(reversed(channels))
        self.unet = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=(1 + condition_channels) * stem**2,
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
        h = F.pixel_unshuffle(x, self.stem)

        emb = self.unet.time_embed(get_timestep_embedding(timesteps, self.base_channels).to(h.dtype))
        if class_labels is not None:
            emb = emb + self.unet.class_embedding(class_labels).to(h.dtype)
        h = self.unet.conv_in(h)
        skips: list[Tensor] = [h]
        for down_block in self.unet.down_blocks:
            h, outputs = down_block(hidden_states=h, temb=emb, context=None)
            for output in outputs:
                skips.append(output)
        h = self.unet.middle_block(hidden_states=h, temb=emb, context=None)
        features: list[Tensor] = []
        for up_block in self.unet.up_blocks:
            count: int = len(up_block.resnets)
            h = up_block(
                hidden_states=h, res_hidden_states_list=skips[-count:], temb=emb, context=None
            )
            skips = skips[:-count]
            features.append(h)
        prediction = F.pixel_shuffle(self.unet.out(h), self.stem)
        return prediction[..., :height, :width], features

"""MONAI's DiffusionModelUNet with three blocks replaced that TorchScript cannot compile."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn


class ScriptableUNet(DiffusionModelUNet):
    """DiffusionModelUNet whose blocks ``torch.jit.script`` accepts; weights keep their names and values.

    MONAI 1.6's middle attention, upsampler and ControlNet branch do not script, so that ``ckpt_export``
    would fail. Compiled code must call the blocks, not this network's ``forward``.

    Args:
        **options: of DiffusionModelUNet; without attention levels.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.middle_block.attention = _SpatialAttention(self.middle_block.get_submodule("attention"))
        for up_block in self.up_blocks:
            if up_block.upsampler is not None:
                layers = up_block.get_submodule("upsampler").named_children()
                up_block.upsampler = _Upsample(OrderedDict(layers))

    @torch.jit.unused
    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Predict as MONAI's network does; not in compiled code."""
        return super().forward(*args, **kwargs)


class _SpatialAttention(nn.Module):
    """Self-attention over positions; MONAI's unpacks a shape whose length TorchScript does not know."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.norm = block.get_submodule("norm")
        self.attn = block.get_submodule("attn")

    def forward(self, x: Tensor) -> Tensor:
        positions = self.norm(x).flatten(2).transpose(1, 2)
        return x + self.attn(positions).transpose(1, 2).reshape(x.shape)


class _Upsample(nn.Sequential):
    """Upsampling that takes the time embedding and ignores it; MONAI's calls ``super().forward``."""

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        for layer in self:
            x = layer(x)
        return x

"""MONAI's DiffusionModelUNet with blocks replaced: some do not compile in TorchScript, some cost too much."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.nets import DiffusionModelUNet
from monai.networks.nets.diffusion_model_unet import DiffusionUNetResnetBlock
from torch import Tensor, nn

from monai_diffens.networks.computation import in_fast_layout


class ScriptableUNet(DiffusionModelUNet):
    """DiffusionModelUNet whose blocks ``torch.jit.script`` accepts; weights keep their names and values.

    MONAI 1.6's middle attention, upsampler and ControlNet branch do not script, so that ``ckpt_export``
    would fail. Compiled code must call the blocks, not this network's ``forward``. Upsampler and residual
    blocks compute what MONAI's do with fewer products and fewer copies.

    Args:
        **options: of DiffusionModelUNet, 2D; without attention levels and ``resblock_updown``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.middle_block.attention = _SpatialAttention(self.middle_block.get_submodule("attention"))
        for up_block in self.up_blocks:
            if up_block.upsampler is not None:
                up_block.upsampler = _Upsample(up_block.get_submodule("upsampler"))
        for parent in list(self.modules()):
            for name, block in parent.named_children():
                if isinstance(block, DiffusionUNetResnetBlock):
                    setattr(parent, name, _ResnetBlock(block))

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


class _ResnetBlock(nn.Module):
    """MONAI's residual block; what its layers put out is changed in place instead of copied."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.norm1 = block.get_submodule("norm1")
        self.conv1: Any = block.get_submodule("conv1")
        self.time_emb_proj = block.get_submodule("time_emb_proj")
        self.norm2 = block.get_submodule("norm2")
        self.conv2 = block.get_submodule("conv2")
        self.skip_connection = block.get_submodule("skip_connection")

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """(N, C, H, W) and the time embedding (N, D), or (1, D) for all -> (N, out channels, H, W)."""
        x = in_fast_layout(x, x.shape[2] * x.shape[3])
        h = F.silu(self.norm1(x), inplace=True)
        shift, bias = self.time_emb_proj(F.silu(emb)), self.conv1.conv.bias
        if bias is not None and shift.shape[0] == 1:  # of all images alike: no pass of its own over the maps
            h = F.conv2d(h, self.conv1.conv.weight, bias + shift[0], padding=1)
        else:
            h = self.conv1(h)
            h += shift[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h), inplace=True))
        h += self.skip_connection(x)
        return h


class _Upsample(nn.Module):
    """Upsampling that takes the time embedding and ignores it; MONAI's calls ``super().forward``."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.postconv = block.get_submodule("postconv")
        self.postconv.conv = _UpsamplingConv(block.get_submodule("postconv.conv"))

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        """(N, C, H, W) -> (N, C, 2 H, 2 W)."""
        return self.postconv(x)


class _UpsamplingConv(nn.Module):
    """Nearest-neighbour upsampling by 2 and a 3x3 convolution behind it, as one transposed convolution.

    The same sum in another order: of the nine products of an output pixel those with equal input are joined
    beforehand, so that 4 are left, and nothing upsampled is written.
    """

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.weight, self.bias = conv.get_parameter("weight"), conv.get_parameter("bias")
        # one axis: which of the 4 taps of the transposed convolution each of the 3 of the convolution adds to
        taps = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.float64)
        self.register_buffer("taps", torch.kron(taps, taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', 2 H, 2 W)."""
        x = in_fast_layout(x, 4 * x.shape[2] * x.shape[3])
        # in double precision, which autocast leaves alone: joined in bf16 they would be rounded twice
        joined = self.weight.flatten(2).double() @ self.taps.double()  # type: ignore[operator]
        weight = joined.to(self.weight.dtype).unflatten(2, (4, 4)).transpose(0, 1)
        return F.conv_transpose2d(x, weight, self.bias, stride=2, padding=1)

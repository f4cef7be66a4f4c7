"""MONAI's DiffusionModelUNet with blocks replaced: some do not compile in TorchScript, some cost too much."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.nets import DiffusionModelUNet
from monai.networks.nets.diffusion_model_unet import DiffusionUNetResnetBlock, get_timestep_embedding
from torch import Tensor, nn


class ScriptableUNet(DiffusionModelUNet):
    """DiffusionModelUNet whose blocks ``torch.jit.script`` accepts; weights keep their names and values.

    MONAI 1.6's middle attention, upsampler and ControlNet branch do not script, so that ``ckpt_export``
    would fail. Upsampler and residual blocks compute what MONAI's do with fewer products and fewer copies.

    Args:
        **options: of DiffusionModelUNet, 2D; without attention levels and ``resblock_updown``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.base_channels = int(options["channels"][0])
        self.middle_block.attention = _SpatialAttention(self.middle_block.get_submodule("attention"))
        for up_block in self.up_blocks:
            if up_block.upsampler is not None:
                up_block.upsampler = _Upsample(up_block.get_submodule("upsampler"))
        for parent in list(self.modules()):
            for name, block in parent.named_children():
                if isinstance(block, DiffusionUNetResnetBlock):
                    setattr(parent, name, _ResnetBlock(block))

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        class_labels: Tensor | None = None,
    ) -> Tensor:
        """Predict as MONAI's network does.

        Args:
            x: (N, C, H, W).
            timesteps: (N,), or (1,) for all.
            context: unused, as in MONAI's network without cross-attention.
            class_labels: (N,), or (1,) for all; needed where it was built with ``num_class_embeds``.
        """
        emb = self.time_embed(get_timestep_embedding(timesteps, self.base_channels).to(x.dtype))
        if self.num_class_embeds is not None:
            if class_labels is None:
                raise ValueError("class_labels are needed: built with num_class_embeds")
            emb = emb + self.class_embedding(class_labels).to(x.dtype)
        h = self.conv_in(in_fast_layout(x, x.shape[2] * x.shape[3]))
        skips: list[Tensor] = [h]
        for down_block in self.down_blocks:
            h, outputs = down_block(hidden_states=h, temb=emb, context=None)
            for output in outputs:
                skips.append(output)
        h = self.middle_block(hidden_states=h, temb=emb, context=None)
        for up_block in self.up_blocks:
            count: int = len(up_block.resnets)  # type: ignore[arg-type]
            h = up_block(hidden_states=h, res_hidden_states_list=skips[-count:], temb=emb, context=None)
            skips = skips[:-count]
        return self.out(h)


# constants come as defaults: compiled code reads no globals
def in_fast_layout(x: Tensor, positions: int, fewest: int = 1024) -> Tensor:
    """Lay (N, C, H, W) out as the convolutions behind it are fastest: another order in memory, equal values.

    A processor's convolutions in bf16 reorder nothing where channels come last; gradients are slower in it.
    torch's group norm of fewer than 1,024 positions is slower in it, by ten times: all else is contiguous.

    Args:
        x: of any layout.
        positions: of the map that the convolutions work on.
        fewest: positions from which on it is laid out in channels_last.
    """
    if positions < fewest or x.is_cuda or x.dtype != torch.bfloat16 or torch.is_grad_enabled():
        return x.contiguous()
    return x.contiguous(memory_format=torch.channels_last)


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
    """Nearest-neighbour upsampling by 2 and a 3x3 convolution behind it, as one transposed convolution.

    The same sum in another order: of the nine products of an output pixel those with equal input are joined
    beforehand, so that 4 are left, and nothing upsampled is written. It takes the time embedding and ignores
    it; MONAI's calls ``super().forward``, which does not script.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.postconv: Any = block.get_submodule("postconv")
        # one axis: which of the 4 taps of the transposed convolution each of the 3 of the convolution adds to
        taps = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.float64)
        self.register_buffer("taps", torch.kron(taps, taps), persistent=False)

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        """(N, C, H, W) -> (N, C', 2 H, 2 W)."""
        conv = self.postconv.conv
        x = in_fast_layout(x, 4 * x.shape[2] * x.shape[3])
        # in double precision, which autocast leaves alone: joined in bf16 they would be rounded twice
        joined = conv.weight.flatten(2).double() @ self.taps.double()  # type: ignore[operator]
        weight = joined.to(conv.weight.dtype).unflatten(2, (4, 4)).transpose(0, 1)
        return F.conv_transpose2d(x, weight, conv.bias, stride=2, padding=1)

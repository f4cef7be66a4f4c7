"""The block that the learned fusion is made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FilmBlock(nn.Module):
    """Residual block of two 3x3x3 convolutions, modulated by the embedding of t and of who is present.

    Normalises over channels only: statistics over space would make a window differ from the whole.
    """

    def __init__(self, in_channels: int, channels: int, embedding_dim: int) -> None:
        super().__init__()
        self.norm_in = ChannelNorm(in_channels)
        self.conv_in = nn.Conv3d(in_channels, channels, 3, padding=1)
        self.film = nn.Linear(embedding_dim, 2 * channels)
        self.norm_out = ChannelNorm(channels)
        self.conv_out = nn.Conv3d(channels, channels, 3, padding=1)
        self.skip = nn.Conv3d(in_channels, channels, 1) if in_channels != channels else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, in_channels, X, Y, Z) and (B, embedding_dim) -> (B, channels, X, Y, Z)."""
        h = self.conv_in(silu(self.norm_in(x)))
        scale, shift = self.film(embedding).chunk(2, dim=1)
        h = self.norm_out.modulated(h, scale, shift)
        h = self.conv_out(silu(h))
        h += self.skip(x)
        return h


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each voxel."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> the same shape, each voxel with mean 0 and variance 1 over C."""
        return self._normalise(x, self.weight, self.bias)

    def modulated(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """:meth:`forward`, times 1 + scale, plus shift, both (B, C)."""
        if x.shape[0] == 1:  # a part of the normalisation's own factors: no pass of its own over the volume
            factor = 1 + scale[0].to(self.weight.dtype)
            return self._normalise(x, self.weight * factor, self.bias * factor + shift[0])
        factor, shift = (1 + scale)[:, :, None, None, None], shift[:, :, None, None, None]
        return torch.addcmul(shift, self.forward(x), factor)

    def _normalise(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        # torch's kernel over the last axis: twice as fast as the formula over the second, in less memory
        return F.layer_norm(x.movedim(1, -1), weight.shape, weight, bias, self.eps).movedim(-1, 1)


def silu(x: Tensor) -> Tensor:
    """SiLU of what nobody else needs: in place, but where a gradient would have it copied before."""
    return F.silu(x, inplace=not torch.is_grad_enabled())

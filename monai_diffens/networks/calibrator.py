"""The learned fusion: a light 3D network that weighs the experts voxel by voxel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.nets.diffusion_model_unet import get_timestep_embedding
from torch import Tensor, nn

from monai_diffens.acquisition.slicing import from_patches, to_patches
from monai_diffens.networks.computation import computed_type
from monai_diffens.networks.windows import Window, receptive_halo, split

# Deviations from the mean are small against the predictions; brought to the same size they are seen.
DEVIATION_GAIN = 3.0


class VolumeCalibrator(nn.Module):
    """3D U-Net that turns expert predictions into voxel-wise weights and a bias.

    Fusion is sum_e w_e v_e + b with sum_e w_e = 1 over the experts present. The last convolution starts
    at zero, so training starts from the plain average. Weights are not a softmax: together with b they
    may leave the convex hull of the experts.

    Every expert and condition has its own channel; an absent one's channel is zero, and who is present
    enters with t. One set of weights so serves any subset, at one cost, and the order in which a user lists
    conditions cannot matter.

    Args:
        num_experts: E.
        num_conditions: M.
        channels: width of each level; the first works at half resolution, behind a patch stem of 2.
        embedding_dim: width of the embedding of t and of presence.
    """

    def __init__(
        self,
        num_experts: int = 3,
        num_conditions: int = 1,
        channels: tuple[int, ...] = (32, 64),
        embedding_dim: int = 64,
    ) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.stem = 2
        self.level_strides = [self.stem * 2**level for level in range(len(channels))]
        self.divisor = self.level_strides[-1]
        self.embedding_dim = embedding_dim
        self.deviation_gain = DEVIATION_GAIN  # compiled code reads attributes, no globals
        self.embed = nn.Sequential(
            nn.Linear(embedding_dim + num_experts, embedding_dim),
            nn.SiLU(),
            nn.Linear(embedding_dim, embedding_dim),
        )
        patch = self.stem**3
        self.conv_in = nn.Conv3d((2 + num_conditions + num_experts) * patch, channels[0], 3, padding=1)
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        self.reduce = nn.ModuleList()
        self.expand = nn.ModuleList()
        for level, width in enumerate(channels):
            self.down.append(FilmBlock(width, width, embedding_dim))
            if level + 1 < len(channels):
                wider = channels[level + 1]
                self.reduce.append(nn.Conv3d(width, wider, 2, stride=2))
                self.expand.append(nn.ConvTranspose3d(wider, width, 2, stride=2))
                self.up.append(FilmBlock(2 * width, width, embedding_dim))
        self.norm_out = ChannelNorm(channels[0])
        self.conv_out = nn.Conv3d(channels[0], (num_experts + 1) * patch, 3, padding=1)
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        x_t: Tensor,
        conditions: Tensor,
        predictions: Tensor,
        timesteps: Tensor,
        present: Tensor,
        emphasis: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Weigh the experts.

        Args:
            x_t: (B, 1, X, Y, Z).
            conditions: (B, M, X, Y, Z), zero where absent.
            predictions: (B, E, X, Y, Z).
            timesteps: (B,).
            present: (B, E) bool, at least one true a row.
            emphasis: (E,), what the user multiplies each expert's part by, see :func:`average_weights`.
                The network itself never sees it. 1 for all when None.

        Returns:
            Weights (B, E, X, Y, Z), zero for absent experts and summing to 1, and bias (B, 1, X, Y, Z).
        """
        share = average_weights(present).to(predictions.dtype)[:, :, None, None, None]
        mask = (share > 0).to(predictions.dtype)
        embedding = self.embed(
            torch.cat(
                [get_timestep_embedding(timesteps, self.embedding_dim), present.to(torch.float32)], dim=1
            )
        )
        h = self.conv_in(self._stem_input(x_t, conditions, predictions, share, mask))
        skips: list[Tensor] = []
        # TorchScript: no indexing of modules, no zip(strict=), `forward` where a list was reversed, and no
        # second use of a module's variable
        for block, reduce in zip(self.down, self.reduce):  # noqa: B905
            h = block(h, embedding)
            skips.append(h)
            h = reduce(h)
        h = self.down[-1](h, embedding)
        for expand, merge in zip(self.expand[::-1], self.up[::-1]):  # noqa: B905
            h = merge.forward(torch.cat([expand.forward(h), skips.pop()], dim=1), embedding)
        raw, bias = self._read_out(h, list(x_t.shape[2:]), mask)
        # What the deviations from the average add is given back in the average's shares. With emphasis they
        # are scaled like the shares: learned weights may be negative, so dividing by their sum is no option.
        if emphasis is not None:
            raw = raw * emphasis.to(raw)[None, :, None, None, None]
            share = average_weights(present, emphasis).to(raw.dtype)[:, :, None, None, None]
        return raw.addcmul_(share, 1 - raw.sum(dim=1, keepdim=True)), bias

    def _read_out(self, h: Tensor, size: list[int], mask: Tensor) -> tuple[Tensor, Tensor]:
        """Deviations of the weights from the average's (B, E, X, Y, Z), 0 for absent experts, and bias.

        A method of its own for the same reason as :meth:`_stem_input`.
        """
        output = from_patches(self.conv_out(silu(self.norm_out(h))), self.stem)
        output = output[:, :, : size[0], : size[1], : size[2]]
        # times what keeps a part or drops it, in the type of the predictions at once: no copy of its own
        return output[:, : self.num_experts] * mask, output[:, self.num_experts :].to(mask.dtype)

    def _stem_input(
        self, x_t: Tensor, conditions: Tensor, predictions: Tensor, share: Tensor, mask: Tensor
    ) -> Tensor:
        """Patches of x_t, conditions, the experts' mean and their deviations from it, padded to whole cells.

        Each volume goes to its place by itself: what would otherwise be held of them at once, twice over, is
        more than the network holds later on.
        """
        mean = weighted_sum(share, predictions)
        x, y, z = [(side + -side % self.divisor) // self.stem for side in x_t.shape[2:]]
        channels = int(self.stem**3) * (x_t.shape[1] + conditions.shape[1] + 1 + self.num_experts)
        dtype = computed_type(x_t)
        if dtype == torch.bfloat16 and not x_t.is_cuda and not torch.is_grad_enabled():
            # a processor's convolutions in bf16 reorder nothing where channels come last
            room = torch.empty([x_t.shape[0], x, y, z, channels], dtype=dtype).movedim(-1, 1)
        else:
            room = torch.empty([x_t.shape[0], channels, x, y, z], dtype=dtype, device=x_t.device)
        place = 0
        for part in [x_t, conditions, mean]:
            place = self._put(part, room, place)
        gain = mask * self.deviation_gain
        for index in range(self.num_experts):
            expert = predictions[:, index : index + 1]
            place = self._put((expert - mean) * gain[:, index : index + 1], room, place)
        return room

    def _put(self, volume: Tensor, room: Tensor, place: int) -> int:
        """Write a volume's patches from a channel on; return the one behind them."""
        short = [-side % self.divisor for side in volume.shape[2:]]
        # cast before it is cut into patches: half as much is moved
        padded = F.pad(volume.to(room.dtype), (0, short[2], 0, short[1], 0, short[0]))
        patches = to_patches(padded, self.stem)
        end = place + patches.shape[1]
        room[:, place:end] = patches
        return end

    @torch.jit.unused
    def windows(self, shape: Sequence[int], max_voxels: int, at_least: int = 1) -> list[Window]:
        """Windows of a volume (X, Y, Z) that this network gives the whole's result in, see :func:`split`."""
        return split(shape, max_voxels, receptive_halo(self.level_strides), self.divisor, at_least)


def average_weights(present: Tensor, emphasis: Tensor | None = None) -> Tensor:
    """Weights of the average of the experts present.

    Args:
        present: (B, E) bool.
        emphasis: (E,), 0 or more: factor of each expert before renormalising, so its logarithm is a
            log-weight added. 1 for all when None.

    Returns:
        (B, E) float, summing to 1 where any expert is present, 0 for the absent.
    """
    parts = present.to(torch.float32)
    if emphasis is None:
        return parts / parts.sum(dim=1, keepdim=True).clamp(min=1.0)
    parts = parts * emphasis.to(torch.float32)
    return parts / parts.sum(dim=1, keepdim=True).clamp(min=1e-12)


def weighted_sum(weights: Tensor, volumes: Tensor) -> Tensor:
    """Sum over E of weights (B, E, ...) times volumes (B, E, X, Y, Z): (B, 1, X, Y, Z)."""
    total = weights[:, :1] * volumes[:, :1]
    for index in range(1, volumes.shape[1]):
        total.addcmul_(weights[:, index : index + 1], volumes[:, index : index + 1])
    return total


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

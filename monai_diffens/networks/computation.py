"""In which type and in which order in memory a network computes; what it gives differs by rounding alone."""

from __future__ import annotations

import torch
from torch import Tensor


def computed_type(volume: Tensor) -> torch.dtype:
    """Type that autocast would bring a volume to before a convolution."""
    if not torch.jit.is_scripting():
        device = volume.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):  # none on "meta"
            return torch.get_autocast_dtype(device)
    return volume.dtype


def as_computed(volume: Tensor) -> Tensor:
    """The volume in its :func:`computed_type`: cast before it is cut into patches, half as much is moved."""
    return volume.to(computed_type(volume))


# constants come as defaults: compiled code reads no globals
def in_fast_layout(x: Tensor, positions: int, fewest: int = 1024) -> Tensor:
    """Lay (N, C, H, W) out as the convolutions behind it are fastest: another order in memory, equal values.

    In channels_last where :func:`channels_last_is_fast`. torch's group norm of fewer than 1,024 positions is
    slower in it, by ten times: all else is contiguous.

    Args:
        x: of any layout.
        positions: of the map that the convolutions work on.
        fewest: positions from which on it is laid out in channels_last.
    """
    if positions < fewest or not channels_last_is_fast(x):
        return x.contiguous()
    return x.contiguous(memory_format=torch.channels_last)


def channels_last_is_fast(x: Tensor) -> bool:
    """Whether convolutions of a tensor's device and type reorder nothing where its channels come last.

    A processor's in bf16. Gradients are slower in it.
    """
    return not x.is_cuda and x.dtype == torch.bfloat16 and not torch.is_grad_enabled()


def check_amp(amp: bool | str) -> None:
    """Raise ValueError where a choice of precision is none."""
    if amp not in (True, False, "auto"):
        raise ValueError(f"amp must be true, false or 'auto', got '{amp}'")


def computes_in_bf16(amp: bool | str, device_type: str) -> bool:
    """Whether to autocast: on processors without bf16 arithmetic it is several times slower.

    Args:
        amp: True, False, or "auto" (where the processor computes in bf16).
        device_type: "cpu" or "cuda".
    """
    if amp != "auto":
        return bool(amp)
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()

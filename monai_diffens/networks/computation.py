"""In which type a network computes; what it gives differs by rounding alone."""

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

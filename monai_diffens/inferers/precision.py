"""Where mixed precision pays."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor, nn


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


class AutocastInferer(Inferer):
    """Run another inferer in bf16 where the processor computes in it.

    MONAI's trainer autocasts on GPUs alone. bf16 has the exponents of float32: no gradient has to be scaled.
    Not for training 3D networks on a processor: torch 2.13's bf16 gradients of small 3D convolutions read
    memory that nobody wrote (NaN where it held one). 2D convolutions and predictions never did when tried.

    Args:
        inferer: what is run.
        amp: see :func:`computes_in_bf16`; a GPU's precision is left to the trainer.
    """

    def __init__(self, inferer: Inferer, amp: bool | str = "auto") -> None:
        super().__init__()
        self.inferer = inferer
        self.amp = amp

    def __call__(  # type: ignore[override]
        self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any
    ) -> Any:
        """Return what the inferer returns, tensors in float32 on a processor."""
        if inputs.device.type != "cpu" or not computes_in_bf16(self.amp, "cpu"):
            return self.inferer(inputs, network, *args, **kwargs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.inferer(inputs, network, *args, **kwargs).float()

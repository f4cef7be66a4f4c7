"""DDIM whose few steps start at pure noise and land where the next step begins."""

from __future__ import annotations

import torch
from monai.networks.schedulers import DDIMScheduler
from torch import Tensor

from monai_diffens.schedulers.prediction import to_clean


class TrailingDDIMScheduler(DDIMScheduler):
    """MONAI's DDIM with trailing timesteps, for 1 to 50 steps.

    MONAI 1.6 spreads n timesteps from T - 1 to 0 but steps by T // n: with 4 steps the network is told
    t = 666 for a sample of noise level 749, and the last of them works at t = 0. Trailing timesteps
    (arXiv 2305.08891, section 3.3) keep spacing and step equal.

    Args:
        num_train_timesteps: T.
        schedule: name in MONAI's NoiseSchedules.
        prediction_type: "v_prediction", "epsilon" or "sample".
    """

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        schedule: str = "cosine",
        prediction_type: str = "v_prediction",
    ) -> None:
        super().__init__(
            num_train_timesteps=num_train_timesteps,
            schedule=schedule,
            prediction_type=prediction_type,
            clip_sample=False,  # residuals of unit variance have no hard bounds
        )

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Set T - 1, T - 1 - s, ... with s = T // num_inference_steps.

        Raises:
            ValueError: when the number of steps is not between 1 and T.
        """
        if not 1 <= num_inference_steps <= self.num_train_timesteps:
            raise ValueError(f"num_steps must be 1 to {self.num_train_timesteps}, got {num_inference_steps}")
        self.num_inference_steps = num_inference_steps
        stride = self.num_train_timesteps // num_inference_steps
        steps = torch.arange(num_inference_steps, device=device)
        self.timesteps = self.num_train_timesteps - 1 - stride * steps

    def step(
        self,
        model_output: Tensor,
        timestep: int,
        sample: Tensor,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Step as MONAI does, by T // num_inference_steps, but always end at the clean sample.

        Where the number of steps does not divide T, MONAI's last step lands at a timestep above zero and
        leaves its noise in (48 steps of 1000: timestep 39, 7 % of the residual's standard deviation).

        Returns:
            The sample at the next timestep, and the clean sample this prediction implies.
        """
        landing = int(timestep) - self.num_train_timesteps // self.num_inference_steps
        if landing < self.num_train_timesteps % self.num_inference_steps:
            level = float(self.alphas_cumprod[int(timestep)])
            clean = to_clean(model_output, sample, level, self.prediction_type)
            return clean, clean
        return super().step(model_output, timestep, sample, eta, generator)

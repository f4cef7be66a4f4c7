"""Schedulers of few steps that start at pure noise: DDIM, and DPM-Solver++ (2M), which MONAI lacks."""

from __future__ import annotations

import math

import torch
from monai.networks.schedulers import DDIMScheduler, Scheduler
from torch import Tensor

from monai_diffens.schedulers.arithmetic import to_clean


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


class DPMSolverPlusPlusScheduler(Scheduler):
    """DPM-Solver++ (2M) in data prediction: deterministic, one network pass a step, second order.

    Source: arXiv 2211.01095, algorithm 2. The first step and the last, which lands at the clean sample, are
    of first order, as DDIM's are; so one and two steps equal DDIM. Timesteps trail (arXiv 2305.08891,
    section 3.3): the first is T - 1.

    The step before is kept between calls and used only where the next call is the next timestep of the same
    walk, so walks may be broken off or begin anywhere.

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
        super().__init__(num_train_timesteps, schedule)
        zero = torch.zeros(1)
        to_clean(zero, zero, 0.5, prediction_type)  # refuses an unknown type here, not in the first step
        self.prediction_type = prediction_type
        self.set_timesteps(num_train_timesteps)

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Spread the timesteps evenly from T - 1 down, and forget the step before.

        Raises:
            ValueError: when the number of steps is not between 1 and T.
        """
        if not 1 <= num_inference_steps <= self.num_train_timesteps:
            raise ValueError(f"num_steps must be 1 to {self.num_train_timesteps}, got {num_inference_steps}")
        self.num_inference_steps = num_inference_steps
        stride = self.num_train_timesteps / num_inference_steps
        self._walk = [
            round(self.num_train_timesteps - step * stride) - 1 for step in range(num_inference_steps)
        ]
        self.timesteps = torch.tensor(self._walk, device=device)
        self._before: tuple[int, Tensor] | None = None

    def step(self, model_output: Tensor, timestep: int, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Walk from a timestep to the next one, or from the last to the clean sample.

        Args:
            model_output: prediction of the network, of the shape of ``sample``.
            timestep: one of ``timesteps``.
            sample: x_t.

        Returns:
            The sample at the next timestep, and the clean sample this prediction implies.

        Raises:
            ValueError: when ``timestep`` is none of ``timesteps``.
        """
        t = int(timestep)
        if t not in self._walk:
            raise ValueError(f"timestep {t} is none of the {len(self._walk)} that were set")
        index = self._walk.index(t)
        alpha, sigma = self._level(t)
        clean = to_clean(model_output, sample, alpha**2, self.prediction_type)
        before, self._before = self._before, (t, clean)
        if index + 1 == len(self._walk):
            return clean, clean
        next_alpha, next_sigma = self._level(self._walk[index + 1])
        step = _half_log_snr(next_alpha, next_sigma) - _half_log_snr(alpha, sigma)
        direction = clean
        if before is not None and index > 0 and before[0] == self._walk[index - 1]:
            last_step = _half_log_snr(alpha, sigma) - _half_log_snr(*self._level(before[0]))
            direction = clean + (clean - before[1]) * (step / (2 * last_step))
        earlier = (next_sigma / sigma) * sample - (next_alpha * math.expm1(-step)) * direction
        return earlier, clean

    def _level(self, t: int) -> tuple[float, float]:
        alpha_cumprod = float(self.alphas_cumprod[t])
        return math.sqrt(alpha_cumprod), math.sqrt(1 - alpha_cumprod)


def _half_log_snr(alpha: float, sigma: float) -> float:
    """Lambda of the paper; minus infinity for pure noise."""
    return math.log(alpha / sigma) if alpha else -math.inf

"""The loop driven by one function ``denoise(x_t, t, step)``, without experts; and one pass of a model."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from monai_diffens.inferers import sampling
from monai_diffens.networks.diff_ensembler import DiffEnsembler, FusedPrediction
from monai_diffens.schedulers.arithmetic import SamplingScheduler, project_prediction

Denoise = Callable[[Tensor, int, int], Tensor]


class Alone:
    """What the loop calls, made of one function."""

    def __init__(self, denoise: Denoise) -> None:
        self.experts = denoise

    def fuse(self, predictions: Tensor, x_t: Tensor, t: int) -> Tensor:
        return predictions

    def agree(self, prediction: Tensor, x_t: Tensor, t: int) -> Tensor:
        return prediction


def sample(denoise: Denoise, *arguments: Any, **options: Any) -> Tensor:
    """:func:`~monai_diffens.inferers.sampling.sample` with it."""
    return sampling.sample(Alone(denoise), *arguments, **options)


def sample_with_prior(denoise: Denoise, *arguments: Any, **options: Any) -> Tensor:
    """:func:`~monai_diffens.inferers.sampling.sample_with_prior` with it."""
    return sampling.sample_with_prior(Alone(denoise), *arguments, **options)


def constrained(
    denoise: Denoise, project: Callable[[Tensor], Tensor], scheduler: SamplingScheduler
) -> Denoise:
    """``denoise`` with its clean samples passed through ``project``."""
    return lambda x_t, t, step: project_prediction(denoise(x_t, t, step), x_t, t, project, scheduler)


@torch.no_grad()
def predict(
    network: DiffEnsembler,
    x_t: Tensor,
    conditions: Tensor,
    timesteps: Tensor,
    fusion: str = "calibrated",
    step: int = 0,
    emphasis: Tensor | None = None,
) -> FusedPrediction:
    """What one denoising step of a model yields."""
    present = network.taking_part(conditions, fusion, step, emphasis)
    predictions = network.bank(x_t, conditions, timesteps, present)
    return network.fuse(x_t, conditions, predictions, timesteps, present, fusion, emphasis)

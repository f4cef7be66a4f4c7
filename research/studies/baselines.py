"""Methods of a sweep that are other networks than the model: how one is run at a point of the dial."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from research.baselines.regression_inferer import RegressionInferer

REGRESSION, VOLUME_DIFFUSION = "3D U-Net regression", "3D diffusion"  # as the bundles' tables call them

DialPoint = tuple[int, float | None, float]  # passes, restart, gain
Drawn = dict[tuple[int, float | None], dict[int, Tensor]]  # residuals by passes and restart, then by seed


class Baseline:
    """A network and what runs it.

    Args:
        network: on the sweep's device.
        inferer: a :class:`DiffEnsemblerInferer` for all points of the dial, or a :class:`RegressionInferer`,
            which has one pass and any gain.
    """

    def __init__(self, network: nn.Module, inferer: DiffEnsemblerInferer | RegressionInferer) -> None:
        self.network = network.eval()
        self.inferer = inferer

    def has(self, point: DialPoint) -> bool:
        """Whether it can be run at a point of the dial."""
        return isinstance(self.inferer, DiffEnsemblerInferer) or point[:2] == (1, None)

    def restore(self, inputs: Tensor, point: DialPoint, drawn: Drawn) -> Tensor:
        """One volume (1, X, Y, Z) of scaled conditions (1, M, X, Y, Z), see :func:`restore_at`."""
        return restore_at(self.inferer, self.network, inputs, point, drawn)


def restore_at(
    inferer: DiffEnsemblerInferer | RegressionInferer,
    network: Any,
    inputs: Tensor,
    point: DialPoint,
    drawn: Drawn | None = None,
) -> Tensor:
    """Run a network at a point of the dial.

    Args:
        inferer: left as it is.
        network: what the inferer runs.
        inputs: (1, M, X, Y, Z) scaled conditions.
        point: of the dial.
        drawn: keeps the residuals of the case: other gains of the same passes need no network.

    Returns:
        (1, X, Y, Z), on the CPU, nowhere negative.
    """
    steps, restart, gain = point
    if isinstance(inferer, DiffEnsemblerInferer):
        inferer = inferer.changed(num_steps=steps, restart=restart, residual_gain=gain)
    else:
        inferer = copy.copy(inferer)
        inferer.residual_gain = gain
    if drawn is not None:
        inferer.drawn = drawn.setdefault((steps, restart), {})
    return torch.as_tensor(inferer(inputs, network)[0]).clamp(min=0).cpu()


def those_given(baselines: Mapping[str, Baseline | None] | None) -> dict[str, Baseline]:
    """The baselines but those that are None: a configuration leaves out what it has no weights for."""
    return {name: baseline for name, baseline in (baselines or {}).items() if baseline is not None}

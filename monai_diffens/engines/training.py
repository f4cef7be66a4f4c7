"""A training as a config's ``run`` starts it: what ends it early is one line and a status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ignite.engine import Engine
from torch import nn

from monai_diffens.bundle.before_run import ended_in_a_line
from monai_diffens.handlers.training import TrainingFailed
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.plane_denoiser import PlaneDenoiser
from monai_diffens.networks.weights import (
    load_planes,
    load_weights,
    save_weights,
    shrink_fusion,
    start_expert,
)


def start(network: nn.Module, weights: str | None = None, planes: Mapping[str, str] | None = None) -> None:
    """Load what a training starts from, see :mod:`monai_diffens.networks.weights`.

    Args:
        network: receives the weights.
        weights: file of all of them; left out when empty or None.
        planes: folders of a :class:`DiffEnsembler`'s experts; likewise.

    Raises:
        SystemExit: with one line, where they cannot be used.
    """
    with ended_in_a_line():
        if weights:
            load_weights(network, weights)
        if planes and isinstance(network, DiffEnsembler):
            load_planes(network, planes)


def start_plane(denoiser: PlaneDenoiser, weights: str | None, planes: str | Sequence[str]) -> None:
    """Load what the training of an expert starts from, if anything; see :func:`start_expert`.

    Args:
        denoiser: receives the weights.
        weights: a checkpoint's or a bundle's file; empty or None starts from nothing.
        planes: plane or planes it is going to be trained on.

    Raises:
        SystemExit: with one line, where they cannot be used.
    """
    with ended_in_a_line():
        if weights:
            start_expert(denoiser, weights, planes)


def shrink(network: DiffEnsembler, weights: str, share: float, path: str | Path) -> None:
    """Write the weights of a model whose fusion is taken back in part, see :func:`shrink_fusion`.

    Args:
        network: receives the weights.
        weights: file to read.
        share: 0 to 1.
        path: file to write.

    Raises:
        SystemExit: with one line, where weights or share cannot be used.
    """
    with ended_in_a_line():
        load_weights(network, weights)
        shrink_fusion(network, share)
        save_weights(network.state_dict(), path)


def train(trainer: Engine) -> None:
    """Run a trainer to its end.

    Args:
        trainer: with its handlers.

    Raises:
        SystemExit: status 1 and one line, where the training cannot begin or go on. The last checkpoint is
            as the epoch before left it.
    """
    try:
        trainer.run()
    except TrainingFailed as error:
        raise SystemExit(str(error)) from None

"""Which experts take part: those a case has conditions for, that the fusion wants and the user leaves in."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from monai_diffens.networks.expert_bank import ExpertBank, present_conditions

FUSIONS = ("calibrated", "mean", "alternate")


class ExpertSelection(nn.Module):
    """The part of :class:`~monai_diffens.networks.diff_ensembler.DiffEnsembler` that knows experts by name.

    Args:
        bank: the experts.
    """

    def __init__(self, bank: ExpertBank) -> None:
        super().__init__()
        self.bank = bank
        self.num_experts = len(bank.names)
        self.expert_names = bank.names
        self.planes = bank.planes
        self.expert_planes = bank.expert_planes
        self.expert_groups = [bank.groups[index] for index in bank.expert_groups]
        # of a single group the user never hears: its experts are called after their planes
        self.named_groups = bank.groups if len(bank.groups) > 1 else ()

    @torch.jit.unused
    def check_fusion(self, fusion: str) -> None:
        """Raise ValueError, naming the choices, when ``fusion`` is none of them."""
        choices = dict.fromkeys((*FUSIONS, *self.expert_planes, *self.named_groups, *self.expert_names))
        if fusion not in choices:
            raise ValueError(f"unknown fusion '{fusion}': use one of {', '.join(choices)}")

    def present(self, conditions: Tensor) -> Tensor:
        """(B, M, X, Y, Z) -> (B, E) bool: the experts of whose conditions a case has any."""
        if conditions.shape[1] == 1:
            return torch.ones(
                [conditions.shape[0], self.num_experts], dtype=torch.bool, device=conditions.device
            )
        members: Tensor = self.bank.group_masks  # type: ignore[assignment]
        has = (present_conditions(conditions)[:, None] & members).any(dim=2)
        return has.repeat(1, self.num_experts // has.shape[1])

    def active(self, fusion: str, step: int, emphasis: Tensor | None = None) -> Tensor:
        """(E,) bool: the experts that ``fusion`` runs at ``step``, among those of ``emphasis`` above 0."""
        usable = torch.ones(self.num_experts, dtype=torch.bool)
        if emphasis is not None:
            usable = emphasis.cpu() > 0
        if fusion == "calibrated" or fusion == "mean":
            return usable
        turn = ""
        if fusion == "alternate":
            planes: list[str] = []
            for index, plane in enumerate(self.expert_planes):
                if bool(usable[index]) and plane not in planes:
                    planes.append(plane)
            turn = planes[step % len(planes)] if len(planes) > 0 else ""
        chosen = torch.zeros_like(usable)
        for index in range(self.num_experts):
            chosen[index] = turn == self.expert_planes[index] or fusion in [
                self.expert_names[index],
                self.expert_planes[index],
                self.expert_groups[index],
            ]
        return chosen & usable

    @torch.jit.unused
    def emphasis(
        self,
        condition_weights: Mapping[str, float] | None = None,
        plane_weights: Mapping[str, float] | None = None,
    ) -> Tensor | None:
        """Turn a user's weights into one factor an expert, the product of its condition's and its plane's.

        Args:
            condition_weights: factor by condition; those not named keep 1.
            plane_weights: factor by plane, likewise. 0 leaves an expert out, as if it were absent; 1 is what
                was trained; 2 counts its prediction twice.

        Returns:
            (E,), or None when every factor is 1.

        Raises:
            ValueError: for an unknown name, a weight that is no number of 0 or more, or no expert left.
        """
        given = (
            ("condition_weights", condition_weights or {}, self.bank.groups, self.expert_groups),
            ("plane_weights", plane_weights or {}, self.bank.planes, self.expert_planes),
        )
        factors = torch.ones(self.num_experts)
        for option, weights, known, of_expert in given:
            for name, weight in weights.items():
                if name not in known:
                    raise ValueError(f"{option}: unknown '{name}': use {', '.join(known)}")
                if not (isinstance(weight, (int, float)) and 0 <= weight < math.inf):
                    raise ValueError(f"{option}: '{name}' must be a number of 0 or more, got {weight!r}")
            factors *= torch.tensor([float(weights.get(name, 1)) for name in of_expert])
        if not factors.any():
            raise ValueError("condition_weights and plane_weights leave no expert")
        return None if bool((factors == 1).all()) else factors

"""Stage 2 on a bank whose answer is known: the loss reads 1 for the average, and training beats it."""

import torch
from monai.data import DataLoader
from torch import nn

from monai_diffens.data.expert_draws import ExpertDraws
from monai_diffens.data.expert_replay import ExpertReplay
from monai_diffens.engines.fusion import FusionPrepareBatch, FusionStep, RelativeSquaredError
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler

SIDE = 16


class KnownBank(nn.Module):
    """Expert 0 is x_t, expert 1 its negative, expert 2 zero: not the truth, but told apart by their signs."""

    conditions = ("image",)
    planes = ("axial",)

    def __init__(self):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.calls = 0

    def present(self, conditions):
        return torch.ones(1, 3, dtype=torch.bool)

    def forward(self, x_t, conditions, timesteps, present=None, target=-1):
        self.calls += 1
        return torch.cat([x_t, -x_t, torch.zeros_like(x_t)], dim=1)


def replay(draws=4, **options):
    generator = torch.Generator().manual_seed(0)
    item = {key: torch.rand(1, SIDE, SIDE, SIDE, generator=generator) for key in ("image", "label")}
    makes = ExpertDraws([item], KnownBank(), TrailingDDIMScheduler(), strata=draws)
    return ExpertReplay(makes, length=8, crop_size=SIDE, **options)


def test_buffer_runs_the_experts_once_and_covers_all_timesteps():
    buffer = replay(draws=10)
    for index in range(len(buffer)):
        assert buffer[index]["volumes"].shape == (3 + 3, SIDE, SIDE, SIDE)
    assert buffer.draw.bank.calls == 10
    assert [entry["timestep"] // 100 for entry in buffer.entries] == list(range(10))


def test_renewal_replaces_the_oldest_draws_in_turn():
    buffer = replay(draws=4, refresh=3)
    buffer.fill()
    before = list(buffer.entries)
    buffer.renew()
    assert [new is old for new, old in zip(buffer.entries, before, strict=True)] == [False] * 3 + [True]
    buffer.renew()
    assert buffer.entries[3] is not before[3]
    assert buffer.renewed == 6


def test_untrained_fusion_scores_one_and_training_lowers_it():
    network = DiffEnsembler(
        channels=(8, 16), norm_num_groups=4, num_head_channels=8, calibrator_channels=(8, 16)
    )
    optimizer = torch.optim.Adam(network.calibrator.parameters(), lr=5e-3)
    loss, step, prepare = RelativeSquaredError(), FusionStep(network), FusionPrepareBatch()
    losses = []
    for _ in range(12):
        for batch in DataLoader(replay(), batch_size=4):
            inputs, target, _, arguments = prepare(batch, "cpu")
            value = loss(step(inputs, **arguments), target)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(value.item())
    assert abs(losses[0] - 1) < 0.02
    assert sum(losses[-4:]) / 4 < 0.8

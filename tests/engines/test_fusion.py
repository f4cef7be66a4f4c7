"""Training of the fusion: the batch, the loss, and that it learns whom to trust."""

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader
from monai.engines import SupervisedTrainer
from torch import nn

from monai_diffens.data.expert_draws import ExpertDraws
from monai_diffens.data.expert_replay import ExpertReplay
from monai_diffens.engines.fusion import (
    FusionPrepareBatch,
    FusionStep,
    RelativeSquaredError,
    average_error,
)
from monai_diffens.schedulers.arithmetic import from_clean
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler
from monai_diffens.target import ResidualTarget

SIZE = (20, 24, 28)


@pytest.mark.parametrize("conditions", [1, 2])
def test_batches_are_taken_apart(conditions):
    volumes = torch.randn(4, 2 + conditions + 6, 5, 6, 7)
    batch = {
        "volumes": volumes,
        "timestep": torch.tensor([1, 20, 300, 999]),
        "present": torch.ones(4, 6, dtype=torch.bool),
        "gram": torch.randn(4, 6, 6, dtype=torch.float64),
    }
    x_t, (target, baseline), arguments, keywords = FusionPrepareBatch(conditions)(batch, "cpu")
    assert arguments == () and set(keywords) == {"conditions", "predictions", "timesteps", "present"}
    parts = [x_t, target, keywords["conditions"], keywords["predictions"]]
    assert [part.shape[1] for part in parts] == [1, 1, conditions, 6]
    assert torch.equal(torch.cat(parts, dim=1), volumes)
    assert baseline.dtype == torch.float32
    torch.testing.assert_close(baseline, batch["gram"].mean(dim=(1, 2)).float())
    assert keywords["timesteps"].tolist() == [1, 20, 300, 999]
    assert keywords["present"].shape == (4, 6) and keywords["present"].all()


def test_average_error_is_that_of_the_plain_average():
    errors, present = torch.randn(2, 4, 50), torch.tensor([[True] * 4, [False, True, True, False]])
    gram = errors @ errors.mT / 50
    expected = [errors[0].mean(dim=0), errors[1, 1:3].mean(dim=0)]
    torch.testing.assert_close(
        average_error(gram, present), torch.stack([error.square().mean() for error in expected])
    )


def test_step_is_fuse(tiny_ensembler):
    network = tiny_ensembler()
    batch = {"volumes": torch.randn(2, 6, 8, 9, 10), "timestep": torch.tensor([5, 700])}
    batch |= {"present": torch.ones(2, 3, dtype=torch.bool), "gram": torch.ones(2, 3, 3)}
    x_t, _, _, keywords = FusionPrepareBatch()(batch)
    with torch.no_grad():
        fused = network.fuse(x_t, **keywords)
        assert torch.equal(FusionStep(network)(x_t, **keywords), fused.prediction)
        weights, bias = network.calibrator(x_t, **keywords)
    expected = (weights * keywords["predictions"]).sum(dim=1, keepdim=True) + bias
    torch.testing.assert_close(fused.prediction, expected)


@pytest.mark.parametrize("baseline", [(1.0, 1.0, 1.0), (0.5, 2.0, 1e-4)], ids=str)
def test_each_sample_counts_by_its_own_baseline(baseline):
    target, errors = torch.randn(3, 1, 4, 5, 6), torch.tensor([0.1, 0.2, 0.3])
    prediction = target + errors.reshape(3, 1, 1, 1, 1)
    loss = RelativeSquaredError()(prediction, (target, torch.tensor(baseline)))
    expected = sum(float(error) ** 2 / base for error, base in zip(errors, baseline, strict=True)) / 3
    assert float(loss) == pytest.approx(expected, rel=1e-4)


class OneIsRight(nn.Module):
    """Experts of a single case: the middle one knows its residual, the others talk noise."""

    conditions = ("image",)

    def __init__(self, residual: torch.Tensor, scheduler: TrailingDDIMScheduler) -> None:
        super().__init__()
        self.residual = nn.Parameter(residual)
        self.scheduler = scheduler

    def present(self, conditions):
        return torch.ones(1, 3, dtype=torch.bool)

    def forward(self, x_t, conditions, timesteps, present=None, target=-1):
        level = float(self.scheduler.alphas_cumprod[int(timesteps[0])])
        right = from_clean(self.residual, x_t, level, "v_prediction")
        return torch.cat([torch.randn_like(right), right, torch.randn_like(right)], dim=1)


def test_training_finds_the_expert_that_is_right(tiny_ensembler):
    scheduler = TrailingDDIMScheduler()
    image = torch.rand(1, *SIZE)
    item = {"image": image, "label": image + 0.07 * torch.randn(1, *SIZE)}
    bank = OneIsRight(ResidualTarget().to_residual(item["label"], image)[None], scheduler)
    replay = ExpertReplay(ExpertDraws([item], bank, scheduler, strata=12), length=160, crop_size=12)
    network = tiny_ensembler(untrained=True)
    losses = []
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=DataLoader(replay, batch_size=4),
        network=FusionStep(network),
        optimizer=torch.optim.Adam(network.calibrator.parameters(), lr=5e-3),
        loss_function=RelativeSquaredError(),
        prepare_batch=FusionPrepareBatch(),
    )
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(e.state.output[0]["loss"]))
    trainer.run()
    assert len(losses) == 40
    assert losses[0] == pytest.approx(1, abs=0.15)  # the plain average
    assert sum(losses[-5:]) / 5 < 0.2

    x_t, (target, _), _, keywords = FusionPrepareBatch()(next(iter(DataLoader(replay, batch_size=4))))
    with torch.no_grad():
        fused = network.fuse(x_t, **keywords)
    assert fused.weights.mean(dim=(0, 2, 3, 4))[1] > 0.7
    assert (fused.prediction - target).square().mean() < 0.2

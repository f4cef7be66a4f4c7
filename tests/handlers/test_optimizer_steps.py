"""Clipping and learning rate follow the optimiser's steps, not the mini-batches."""

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.inferers import SimpleInferer

from monai_diffens.handlers.training import GradientClipping, StepLrSchedule


def train(handlers, accumulation_steps=1, batches=5):
    """Gradient of each optimiser step, and the learning rate it was taken with."""
    network = torch.nn.Linear(4, 1, bias=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    seen = []
    optimizer.register_step_pre_hook(
        lambda *_: seen.append((float(network.weight.grad.norm()), optimizer.param_groups[0]["lr"]))
    )
    data = [{"image": torch.full((2, 4), 100.0), "label": torch.zeros(2, 1)}] * batches
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=data,
        network=network,
        optimizer=optimizer,
        loss_function=torch.nn.MSELoss(),
        inferer=SimpleInferer(),
        train_handlers=handlers(optimizer),
        accumulation_steps=accumulation_steps,
        decollate=False,
    )
    losses = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(e.state.output["loss"]))
    trainer.run()
    assert len(losses) == batches
    return seen


def test_each_step_is_clipped():
    assert all(norm > 10 for norm, _ in train(lambda _: [GradientClipping(0)]))
    for accumulation_steps, steps in ((1, 5), (2, 3)):
        seen = train(lambda _: [GradientClipping(0.5)], accumulation_steps)
        assert [norm for norm, _ in seen] == pytest.approx([0.5] * steps, rel=1e-3)


def test_the_rate_moves_once_a_step():
    def handlers(optimizer):
        return [
            GradientClipping(1e-3),
            StepLrSchedule(
                torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5), print_lr=False, epoch_level=False
            ),
        ]

    assert [rate for _, rate in train(handlers, accumulation_steps=2)] == [1, 0.5, 0.25]


def test_a_negative_norm_is_no_norm():
    with pytest.raises(ValueError, match="must not be negative"):
        GradientClipping(-1)

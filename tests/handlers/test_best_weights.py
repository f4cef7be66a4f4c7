"""The weights that sampled best are kept, and every score is told."""

import logging

import torch
from ignite.engine import Engine
from torch import nn

from monai_diffens.handlers.validation import BestWeights


def test_the_best_is_kept_and_all_scores_are_logged(tmp_path, caplog):
    network = nn.Linear(1, 1, bias=False)
    best = BestWeights(network, tmp_path / "model.pt", "val_psnr")
    engine = Engine(lambda engine, batch: None)
    scores = [(25.0, 0.7), (26.0, 0.75), (25.5, 0.8)]
    with caplog.at_level(logging.INFO):
        for epoch, (psnr, ssim) in enumerate(scores, start=1):
            nn.init.constant_(network.weight, epoch)
            engine.state.epoch, engine.state.metrics = epoch, {"val_psnr": psnr, "val_ssim": ssim}
            best(engine)
        best.finish()
    assert torch.load(tmp_path / "model.pt", weights_only=True)["weight"].item() == 2
    assert caplog.messages == [
        "epoch 1: val_psnr 25.0000, val_ssim 0.7000; best 25.0000 at epoch 1",
        "epoch 2: val_psnr 26.0000, val_ssim 0.7500; best 26.0000 at epoch 2",
        "epoch 3: val_psnr 25.5000, val_ssim 0.8000; best 26.0000 at epoch 2",
        f"weights of epoch 2, val_psnr 26.0000: {tmp_path / 'model.pt'}",
    ]

"""A run killed at a random moment and resumed ends with the weights of an uninterrupted one."""

import random
import signal
import time

import pytest
import torch

RANDOM = random.Random(int(time.time()))  # a new moment in each run of the tests


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["train_planes", "train"])
def test_killed_and_resumed_equals_uninterrupted(stage, arguments, start, assert_same, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    reference = start(arguments(stage, output_dir=str(whole), max_epochs=4))
    first = start(arguments(stage, output_dir=str(killed), max_epochs=4))
    while not (killed / "last.pt").is_file():
        assert first.exitcode is None
        time.sleep(0.02)
    time.sleep(RANDOM.uniform(0, 1))
    first.kill()
    first.join()
    assert first.exitcode == -signal.SIGKILL
    reached = torch.load(killed / "last.pt", weights_only=True)["epoch"]
    assert 1 <= reached < 4

    refused = start(arguments(stage, output_dir=str(killed), max_epochs=4))  # it would replace the other run
    changed = start(arguments(stage, output_dir=str(killed), max_epochs=4, resume=True, batch_size=3))
    for process in (refused, changed):
        process.join()
        assert process.exitcode == 1

    second = start(arguments(stage, output_dir=str(killed), max_epochs=4, resume=True))
    for process in (second, reference):
        process.join()
        assert process.exitcode == 0
    for name in ("last.pt", "model.pt"):
        states = [torch.load(folder / name, weights_only=True) for folder in (whole, killed)]
        assert_same(*states, where=name)

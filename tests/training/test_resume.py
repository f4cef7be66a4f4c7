"""A run killed at a random moment and resumed ends with the weights of an uninterrupted one."""

import random
import shutil
import signal
import time
from functools import partial

import pytest
import torch

RANDOM = random.Random(int(time.time()))  # a new moment in each run of the tests
SR, TRANSLATE = "diffensembler_sr", "diffensembler_translate"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bundle", "stage", "dataset"),
    [
        (SR, "train_planes", "train#source"),
        (SR, "train", None),
        (TRANSLATE, "train_planes", None),
        (TRANSLATE, "train", "train#source"),
    ],
)
def test_killed_and_resumed_equals_uninterrupted(
    bundle, stage, dataset, arguments, start, assert_same, tmp_path
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    build = partial(arguments, stage, bundle=bundle, max_epochs=4)
    reference = start(build(output_dir=str(whole)))
    build = partial(build, output_dir=str(killed))
    if dataset:  # volumes cached on disk instead of in memory, as docs/training.md says
        cached = {
            "data": "@train#items",
            "transform": "@train#preprocessing",
            "cache_dir": str(tmp_path / "cache"),
        }
        build = partial(build, **{dataset: {"_target_": "monai.data.PersistentDataset", **cached}})
    for longest in (1.0, 0.3, 0.1, 0.0):  # a fast machine may have ended the run by then: sooner
        shutil.rmtree(killed, ignore_errors=True)
        first = start(build())
        while not (killed / "last.pt").is_file():
            assert first.exitcode is None
            time.sleep(0.02)
        time.sleep(RANDOM.uniform(0, longest))
        first.kill()
        first.join()
        reached = torch.load(killed / "last.pt", weights_only=True)["epoch"]
        if reached < 4:
            break
    assert first.exitcode == -signal.SIGKILL
    assert 1 <= reached < 4

    refused = start(build())  # it would replace the other run
    changed = start(build(resume=True, batch_size=3))
    for process in (refused, changed):
        process.join()
        assert process.exitcode == 1

    second = start(build(resume=True))
    for process in (second, reference):
        process.join()
        assert process.exitcode == 0
    if dataset:
        assert len(list((tmp_path / "cache").glob("*.pt"))) == 2
    for name in ("last.pt", "model.pt"):
        states = [torch.load(folder / name, weights_only=True) for folder in (whole, killed)]
        for state in states:  # what it cost is not the same twice
            state.get("log", {}).pop("seconds", None)
        assert_same(*states, where=name)

"""Two processes under torchrun take the steps that one takes on the joined batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def crops(count: int) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "volumes": torch.randn(6, 16, 16, 16, generator=generator),
            "timestep": 100 * number + 99,
            "present": torch.ones(1, dtype=torch.bool),
            "gram": 0.5 * torch.eye(3) + 0.1 * number,
        }
        for number in range(count)
    ]


@pytest.mark.slow
def test_two_processes_equal_one_with_the_joined_batch(arguments, start, tmp_path):
    torch.save(crops(12), tmp_path / "crops.pt")
    fixed = {
        "train::dataset": {"_target_": "torch.load", "f": str(tmp_path / "crops.pt"), "weights_only": True},
        "train::checkpoint": {"network": "@model", "optimizer": "@train#optimizer"},
        "train::handlers::4::_disabled_": True,  # the renewal of a replay buffer
        "max_epochs": 1,
        "val_interval": 0,
        "warmup_steps": 1,
    }
    (tmp_path / "fixed.json").write_text(json.dumps(fixed))
    shares = {
        "train::dataloader::sampler": {
            "_target_": "torch.utils.data.DistributedSampler",
            "dataset": "@train#dataset",
            "shuffle": False,
        },
        "batch_size": 2,
    }
    (tmp_path / "shares.json").write_text(json.dumps(shares))

    one = arguments("train", output_dir=str(tmp_path / "one"), batch_size=4)
    one["config_file"].append(str(tmp_path / "fixed.json"))
    process = start(one)
    two = arguments("train", overlays=("multi_gpu_train",), output_dir=str(tmp_path / "two"))
    two["config_file"] += [str(tmp_path / "fixed.json"), str(tmp_path / "shares.json")]
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", "-m", "monai.bundle", "run"]
    command += [part for name, value in two.items() for part in (f"--{name}", str(value))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    process.join()
    assert process.exitcode == 0

    single, joined = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("one", "two"))
    assert single["settings"]["processes"] == 1 and joined["settings"]["processes"] == 2
    moments = [state["optimizer"]["state"] for state in (single, joined)]
    largest = max(float(moment["exp_avg"].abs().max()) for moment in moments[0].values())
    assert largest > 1e-4 and len(moments[0]) == len(moments[1]) > 10
    for key, moment in moments[0].items():  # the mean of the gradients of three steps
        torch.testing.assert_close(
            moments[1][key]["exp_avg"], moment["exp_avg"], rtol=1e-3, atol=1e-5 * largest
        )
    for name, value in single["network"].items():
        torch.testing.assert_close(joined["network"][name], value, rtol=1e-3, atol=1e-5)

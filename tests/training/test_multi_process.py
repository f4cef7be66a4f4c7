"""Two processes under torchrun take the steps that one takes on the joined batch."""

import json
from typing import Any

import pytest
import torch
from two_processes import ROOT, run_two

BUNDLES = ["diffensembler_sr", "diffensembler_translate"]
# slices with everything that is random about them, in place of what each process draws by itself
FIXED_SLICES = (
    "$lambda batch, device, non_blocking, **_: (batch['residual'], "
    "batch['target'], (), "
    "{'noise': batch['noise'], 'timesteps': batch['timesteps'], 'condition': batch['image'], "
    "'mode': 'concat', **({'class_labels': batch['group']} if 'group' in batch else {})})"
)


def crops(count: int) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "volumes": torch.randn(6, 16, 16, 16, generator=generator),
            "timestep": 100 * number + 99,
            "present": torch.ones(3, dtype=torch.bool),
            "gram": 0.5 * torch.eye(3) + 0.1 * number,
        }
        for number in range(count)
    ]


def slices(count: int, groups: int) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    names = {"residual": 1, "target": 1, "noise": 1, "image": 16 if groups > 1 else 5}
    return [
        {name: torch.randn(channels, 16, 16, generator=generator) for name, channels in names.items()}
        | {"timesteps": 80 * number + 19}
        | ({"group": number % groups} if groups > 1 else {})
        for number in range(count)
    ]


@pytest.fixture
def one_and_two(arguments, start, tmp_path):
    """Function (stage, items, overrides, bundle, machines) to the checkpoints of one process and of two."""

    def train(
        stage: str, items: list[dict], fixed: dict[str, Any], bundle: str = BUNDLES[0], machines: int = 1
    ) -> list[dict]:
        torch.save(items, tmp_path / "items.pt")
        fixed |= {
            "train::dataset": {
                "_target_": "torch.load",
                "f": str(tmp_path / "items.pt"),
                "weights_only": True,
            },
            "train::checkpoint": {"network": "@model", "optimizer": "@train#optimizer"},
            "train::dataloader::sampler": {
                "_target_": "torch.utils.data.SequentialSampler",
                "data_source": "@train#dataset",
            },
            "max_epochs": 1,
            "val_interval": 0,
            "warmup_steps": 1,
        }
        if stage == "train_planes":
            fixed["train::inferer::amp"] = False  # within rounding is that of float32
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
        one = arguments(stage, bundle=bundle, output_dir=str(tmp_path / "one"), batch_size=4)
        one["config_file"].append(str(tmp_path / "fixed.json"))
        process = start(one)
        overlays = ("multi_gpu_train",)
        two = arguments(stage, overlays=overlays, bundle=bundle, output_dir=str(tmp_path / "two"))
        two["config_file"] += [str(tmp_path / "fixed.json"), str(tmp_path / "shares.json")]
        run_two(two, machines)
        process.join()
        assert process.exitcode == 0
        return [torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("one", "two")]

    return train


def assert_same_steps(single: dict, joined: dict) -> None:
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


def without_renewal(bundle: str, stage: str) -> dict[str, bool]:
    """What leaves the buffer alone: these runs have none."""
    config = json.loads((ROOT / "bundles" / bundle / "configs" / f"{stage}.json").read_text())
    (number,) = (n for n, one in enumerate(config["train"]["handlers"]) if "ReplayRenewal" in str(one))
    return {f"train::handlers::{number}::_disabled_": True}


@pytest.mark.slow
def test_two_processes_train_the_fusion_as_one_does_on_the_joined_batch(one_and_two):
    assert_same_steps(*one_and_two("train", crops(12), without_renewal(BUNDLES[0], "train")))


@pytest.mark.slow
@pytest.mark.parametrize(("bundle", "machines"), list(zip(BUNDLES, (2, 1), strict=True)))
def test_two_processes_train_a_plane_as_one_does_on_the_joined_batch(bundle, machines, one_and_two):
    items = slices(12, groups=4 if "translate" in bundle else 1)
    fixed = {"train::prepare_batch": FIXED_SLICES} | without_renewal(bundle, "train_planes")
    assert_same_steps(*one_and_two("train_planes", items, fixed, bundle, machines))

"""Tiny training runs of the shipped configs: made-up volumes, small networks, every part of a real run."""

import json
import logging
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from forked import SERVER
from monai.bundle import ConfigWorkflow

BUNDLES = Path(__file__).parents[1] / "bundles"
RESEARCH = Path(__file__).parents[1] / "research"
SHAPE = (20, 24, 20)
CONTRASTS = ("T1w", "ce-gadolinium_T1w", "T2w", "FLAIR")
EXPERT = {"channels": [8, 16], "norm_num_groups": 4, "num_head_channels": 8}
NETWORKS = {  # of other configs: the whole model
    "train_planes": EXPERT,
    "regression": {"channels": [8] * 6},  # an overlay
    "train_segmentation": {"channels": [4] * 6},
}
MODEL = EXPERT | {"calibrator_channels": [8, 16]}
SMALL = {
    "max_epochs": 3,
    "iterations": 3,
    "batch_size": 2,
    "warmup_steps": 2,
    "val_region": [16, 16, 16],
    "val_interval": 1,
    "val_num_steps": 1,
    "preview_interval": 0,
    "progress": False,
}
SMALL_PLANES = {"slice_size": 16, "crops": 2, "slots": 4, "refresh": 1}
SMALL_FUSION = {"plane_weights": None, "draws": 4, "refresh": 1, "crop_size": 16}


@pytest.fixture(scope="session")
def tiny_bids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BIDS folder of two training subjects and one for validation, smooth blobs that sampling can restore.

    Of the four contrasts one is sharp enough for super-resolution, which volumes.json lists.
    """
    folder = tmp_path_factory.mktemp("bids")
    rows = ["participant_id\tsplit\tthroughplane_sharpness\tresidual_shift_mm"]  # two are the data pack's
    listed: dict[str, list[dict[str, str]]] = {"training": [], "validation": []}
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"))
    for number, split in enumerate(("train", "train", "val")):
        waves = sum(np.sin(grid[axis] * (0.5 + 0.3 * number) + axis) for axis in range(3))
        subject = f"sub-0{number}"
        (folder / subject / "anat").mkdir(parents=True)
        for power, contrast in enumerate(CONTRASTS):
            volume = 350 + 100 * waves * (-1) ** power + 10 * power
            image = nib.Nifti1Image(volume.astype(np.int16), np.eye(4))
            image.to_filename(folder / subject / "anat" / f"{subject}_{contrast}.nii.gz")
        rows.append(f"{subject}\t{split}\tT1w=0.9\tFLAIR=0.1")
        item = {"label": f"{subject}/anat/{subject}_T1w.nii.gz", "subject": subject}
        listed["validation" if split == "val" else "training"].append(item)
    (folder / "participants.tsv").write_text("\n".join(rows) + "\n")
    (folder / "volumes.json").write_text(json.dumps(listed))
    return folder


@pytest.fixture
def arguments(tiny_bids: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Function (config's name, option=value, ...) to the arguments of ``monai.bundle.run`` for a tiny run."""

    def build(
        stage: str, overlays: tuple[str, ...] = (), bundle: str = "diffensembler_sr", **options: Any
    ) -> dict[str, Any]:
        configs = BUNDLES / bundle / "configs"

        def file_of(name: str) -> Path:
            own = configs / f"{name}.json"
            return own if own.is_file() else RESEARCH / "configs" / bundle.split("_")[1] / own.name

        config = json.loads(file_of(stage).read_text())
        small = next((NETWORKS[name] for name in (*overlays, stage) if name in NETWORKS), MODEL)
        overlay: dict[str, Any] = {f"network_def::{key}": value for key, value in small.items()}
        if "train" in config:
            overlay |= {key: value for key, value in SMALL.items() if key in config}
            for steps in ("deterministic_transforms", "random_transforms"):
                for place, each in enumerate(config["train"][steps]):
                    if each["_target_"] == "monai.transforms.SpatialPadd":
                        overlay[f"train::{steps}::{place}::spatial_size"] = 16
        if stage == "train_planes":
            overlay |= SMALL_PLANES
        if stage == "train":
            overlay |= SMALL_FUSION
        volumes = {"data_list": str(tiny_bids / "volumes.json")}
        own = volumes if "data_list" in config and bundle == "diffensembler_sr" else {}
        (tmp_path / f"{stage}_tiny.json").write_text(json.dumps(overlay))
        files = [file_of(name) for name in (stage, *overlays)]
        return {
            "config_file": [str(path) for path in (*files, tmp_path / f"{stage}_tiny.json")],
            "dataset_dir": str(tiny_bids),
            "output_dir": str(tmp_path / "out"),
            "logging_file": str(configs / "logging.conf"),
        } | (own | options)

    return build


@pytest.fixture(scope="session")
def start() -> Callable[[dict[str, Any]], BaseProcess]:
    """Function (arguments of ``monai.bundle.run``) to a started process; imports are paid for once."""

    def launch(arguments: dict[str, Any]) -> BaseProcess:
        process = SERVER.Process(target=monai.bundle.run, kwargs=arguments)
        process.start()
        return process

    return launch


@pytest.fixture(scope="session")
def assert_same() -> Callable[..., None]:
    """Function of two nested contents that must be equal bit for bit."""

    def check(a: Any, b: Any, where: str = "") -> None:
        assert type(a) is type(b), where
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b), where
        elif isinstance(a, dict):
            assert list(a) == list(b), where
            for key in a:
                check(a[key], b[key], f"{where}/{key}")
        elif isinstance(a, list | tuple):
            assert len(a) == len(b), where
            for index, (x, y) in enumerate(zip(a, b, strict=True)):
                check(x, y, f"{where}/{index}")
        else:
            assert a == b, where

    return check


@pytest.fixture
def run_tiny(arguments: Callable[..., dict[str, Any]]) -> Iterator[Callable[..., ConfigWorkflow]]:
    """Function (stage, options) that runs it in this process and returns the workflow."""

    def start(stage: str, **options) -> ConfigWorkflow:
        workflow = ConfigWorkflow(workflow_type="train", **arguments(stage, **options))
        workflow.initialize()
        workflow.run()
        return workflow

    yield start
    monai.utils.set_determinism(None)
    logging.getLogger().handlers[:] = []

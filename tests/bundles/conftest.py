"""A copy of the bundle with fresh weights, and its command line."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.weights import save_weights

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "bundles" / "diffensembler_sr"


@pytest.fixture(scope="session")
def shipped() -> Path:
    """The super-resolution bundle as it ships."""
    return BUNDLE


def copy_bundle(folder: Path) -> Path:
    """Copy the configs into ``folder``, with untrained weights that predict a little noise."""
    copy = folder / BUNDLE.name
    shutil.copytree(BUNDLE / "configs", copy / "configs")
    torch.manual_seed(0)
    network = DiffEnsembler()
    with torch.no_grad():
        for parameter in network.parameters():  # the last layers start at zero
            parameter.add_(torch.randn_like(parameter), alpha=1e-3)
    save_weights(network.state_dict(), copy / "models" / "model.pt")
    return copy


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of its configs with untrained weights that predict a little noise."""
    return copy_bundle(tmp_path_factory.mktemp("bundles"))


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def run_inference() -> Run:
    """Function (bundle, cwd, option=value, ...) that runs the inference command of a bundle."""

    def run(bundle: Path, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "monai.bundle", "run", "inference"]
        command += ["--bundle_root", str(bundle), "--config_file", str(bundle / "configs" / "inference.json")]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=900
        )

    return run

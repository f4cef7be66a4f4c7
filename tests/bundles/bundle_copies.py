"""Copies of the bundles with fresh weights, for tests that run them."""

import json
import shutil
from pathlib import Path

import torch
from torch import nn

from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.weights import save_weights

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "bundles" / "diffensembler_sr"
TRANSLATION = ROOT / "bundles" / "diffensembler_translate"
TINY = {"channels": [8, 8, 16], "norm_num_groups": 4, "num_head_channels": 8}


def network_of(bundle: Path, config: str = "inference") -> DiffEnsembler:
    """The untrained network of one of a bundle's configs."""
    options = json.loads((bundle / "configs" / f"{config}.json").read_text())["network_def"]
    return DiffEnsembler(**{name: value for name, value in options.items() if name != "_target_"})


def copy_bundle(folder: Path) -> Path:
    """Copy the super-resolution bundle's configs; its weights are untrained and predict a little noise."""
    copy = folder / BUNDLE.name
    shutil.copytree(BUNDLE / "configs", copy / "configs")
    save_noisy(network_of(copy), copy, 1e-3)
    return copy


def copy_translation(folder: Path) -> Path:
    """Copy the translation bundle's configs, with a small random network."""
    copy = folder / TRANSLATION.name
    shutil.copytree(TRANSLATION / "configs", copy / "configs")
    for path in (copy / "configs").glob("*.json"):
        config = json.loads(path.read_text())
        if "network_def" in config:
            config["network_def"] |= TINY
            path.write_text(json.dumps(config))
    save_noisy(network_of(copy), copy, 0.02)
    return copy


def save_noisy(network: nn.Module, bundle: Path, noise: float) -> None:
    """Save a network's weights with noise on them, since its last layers start at zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=noise)
    save_weights(network.state_dict(), bundle / "models" / "model.pt")

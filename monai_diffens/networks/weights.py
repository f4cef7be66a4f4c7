"""Weight files: checked before they are read, read without running anything, half precision on disk."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monai_diffens.acquisition.slicing import PLANES
from monai_diffens.files import sha256_of, whole_or_absent
from monai_diffens.messages import BundleRejected
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.plane_denoiser import PlaneDenoiser


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Load a plain state_dict strictly, after comparing its hash with ``<path>.sha256``.

    Args:
        network: receives the weights in its own precision.
        path: file of a state_dict; the hash file beside it holds "<hex>  <file name>".

    Raises:
        BundleRejected: a file is missing, the hash differs, or names or shapes do not fit.
    """
    path = Path(path)
    try:
        network.load_state_dict(_read_recorded(path), strict=True)
    except BundleRejected:
        raise
    except Exception as error:
        raise BundleRejected(f"{path} does not fit this network: {_first_reason(error)}") from error


def save_weights(state: Mapping[str, Tensor], path: str | Path) -> None:
    """Write a state_dict in half precision, and its hash beside it."""
    path = Path(path)
    save_atomically({name: value.detach().cpu().half() for name, value in state.items()}, path)
    with whole_or_absent(_record_of(path), shared=True) as file:
        file.write(f"{sha256_of(path)}  {path.name}\n".encode())


def save_atomically(content: Any, path: Path) -> None:
    """``torch.save`` that leaves the old file or the new one, whenever it is stopped."""
    with whole_or_absent(path, shared=True) as file:
        torch.save(content, file)


def load_planes(network: DiffEnsembler, folders: Mapping[str, str]) -> None:
    """Load the experts that train_planes.json trained, one folder a plane.

    Args:
        network: its bank receives the weights: ``model.pt``, or the averaged weights (entry "ema") of the
            newest checkpoint where there is no model.pt.
        folders: plane -> folder.

    Raises:
        BundleRejected: when a plane has no folder or a folder no weights.
    """
    for name, expert in zip(network.bank.planes, network.bank.experts, strict=True):
        folder = Path(folders.get(name, ""))
        found = sorted(folder.glob("[!.]*.pt"), key=lambda path: path.stat().st_mtime)
        if name not in folders or not found:
            raise BundleRejected(
                f"no checkpoint of expert '{name}': run train_planes.json --planes {name} first"
            )
        if (folder / "model.pt").is_file():
            load_weights(expert, folder / "model.pt")
        else:
            expert.load_state_dict(_read(found[-1])["ema"])


def shrink_fusion(network: DiffEnsembler, share: float) -> None:
    """Take back a part of what the fusion learned: its last convolution times ``share``.

    Weights and bias are linear in it, so 0 is the plain average of the experts and 1 the learned fusion. A
    fusion that was trained on few subjects is too sure of what it adds; the share is chosen on validation
    samples.

    Args:
        network: its calibrator is changed.
        share: 0 to 1.

    Raises:
        BundleRejected: for another share.
    """
    if not 0 <= share <= 1:
        raise BundleRejected(f"fusion_share must lie between 0 and 1, got {share}")
    with torch.no_grad():
        for parameter in network.calibrator.conv_out.parameters():
            parameter.mul_(share)


def start_expert(denoiser: PlaneDenoiser, path: str | Path, planes: str | Sequence[str]) -> None:
    """Start training an expert from a stage 1 checkpoint, or from a bundle's model.pt.

    Of a bundle the expert of the wanted plane is taken; for several planes, their average: experts
    tuned from a common start lie close enough together for it.

    Args:
        denoiser: receives the weights.
        path: ``model.pt`` or ``last.pt`` that train_planes.json wrote, or a bundle's model.pt.
        planes: plane or planes it is going to be trained on.

    Raises:
        BundleRejected: when the file does not fit.
    """
    state = _read(Path(path))
    if "ema" in state:
        state = state["ema"]
    elif any(key.startswith("bank.") for key in state):
        names = [planes] if isinstance(planes, str) else list(planes)
        experts = [_expert_state(state, PLANES.index(name)) for name in names]
        state = {key: torch.stack([each[key].float() for each in experts]).mean(dim=0) for key in experts[0]}
    try:
        denoiser.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise BundleRejected(f"{path} does not fit this expert: {_first_reason(error)}") from error


def _record_of(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _read_recorded(path: Path) -> Any:
    """:func:`_read` of a file that must have its hash beside it."""
    for needed in (path, _record_of(path)):
        if not needed.is_file():
            raise BundleRejected(f"{needed} is missing: fetch the bundle again, or train it (train.json)")
    return _read(path)


def _read(path: Path) -> Any:
    """Content of a checkpoint: compared with the hash beside it, if there is one; nothing in it is run."""
    content, record = path.read_bytes(), _record_of(path)  # read once: what is loaded is what was compared
    if record.is_file() and record.read_bytes().split()[:1] != [sha256(content).hexdigest().encode()]:
        raise BundleRejected(f"{path} does not match {record.name}: damaged or replaced; it was not loaded")
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's text advises to switch the protection off
        raise BundleRejected(f"{path} holds more than plain tensors: it was not loaded") from error


def _expert_state(state: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
    prefix = f"bank.experts.{index}."
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def _first_reason(error: Exception) -> str:
    """First reason that an error gives, on one line; torch heads a list of them with a line of its own."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.endswith(":")), type(error).__name__)

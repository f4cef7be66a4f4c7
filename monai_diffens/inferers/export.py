"""Export of a bundle's whole sampler as one TorchScript file, compared with the bundle before it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor, save_net_with_metadata

from monai_diffens.bundle.check import check_before_run
from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from monai_diffens.inferers.scripted_sampler import ScriptedSampler
from monai_diffens.networks.weights import load_weights
from monai_diffens.transforms.thick_slices import measurement_for, record_sampling

PROBE = (24, 28, 40)  # voxels of the volume that both are compared on
TOLERANCE = 1e-3  # of the conditions' scale, on which 1 is bright


def export_sampler(
    root: Path,
    path: Path,
    settings: Mapping[str, Any],
    factors: tuple[float, float, float] | None = None,
    profile: str = "box",
) -> float:
    """Write ``path`` (``model.ts``), with the bundle's metadata in it.

    Args:
        root: folder of a bundle.
        path: of the file.
        settings: ids of inference.json to override: ``num_steps``, ``num_samples``, ``seed``, ``fusion``.
        factors: see :class:`ScriptedSampler`.
        profile: likewise.

    Returns:
        Largest difference to the bundle's own inferer on a made-up volume whose brightest voxel is 1.

    Raises:
        SystemExit: with one line: the bundle or a setting is turned down, its inferer has no such export,
            or the difference is too large.
    """
    check_before_run(root)
    parser = ConfigParser()
    parser.read_config(root / "configs" / "inference.json")
    parser.read_meta(root / "configs" / "metadata.json")
    parser.update({"bundle_root": str(root), "device": "cpu", "amp": False, **settings})
    network = parser.get_parsed_content("network_def").eval()
    load_weights(network, root / "models" / "model.pt")
    try:
        inferer = parser.get_parsed_content("inferer")
    except RuntimeError as error:  # MONAI's, around what the inferer has against a setting
        if not isinstance(error.__cause__, ValueError):
            raise
        raise SystemExit(f"{root.name}: {error.__cause__}") from None
    if type(inferer) is not DiffEnsemblerInferer:
        raise SystemExit(f"{root.name}: its inferer, {type(inferer).__name__}, cannot be exported")
    inferer.progress = False
    try:
        plain = ScriptedSampler(network, inferer, factors, profile).eval()
    except ValueError as error:
        raise SystemExit(f"{root.name}: {error}") from None
    sampler = torch.jit.script(plain)

    shape = (1, len(network.bank.conditions), *PROBE)
    probe = torch.zeros(shape)
    probe[..., 4:-4, 4:-4, 2:-2] = torch.rand(
        probe[..., 4:-4, 4:-4, 2:-2].shape, generator=torch.Generator().manual_seed(0)
    )
    known = MetaTensor(probe.clone())
    if factors is not None:
        record_sampling(known, measurement_for(PROBE, factors, profile))
    expected = inferer(known, network)[:, :1]
    difference = float((sampler(probe) - expected).abs().max())
    if not difference < TOLERANCE:
        raise SystemExit(f"{path}: not written, it differs from the bundle by {difference:.2g}")
    meta = {**parser.get("_meta_"), "sampler": {**settings, "factors": factors, "profile": profile}}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_net_with_metadata(sampler, str(path), meta_values=meta)
    return difference

"""A training of minutes that goes every way of the real one: both stages of every bundle, on two small crops.

    python -m research.train_smoke --output_dir train_smoke_output

Crops come from the folder of scans (``DIFFENS_DATA``, or ``../shared/data``); where there is none, from the
template brain that nilearn ships, which has T1w only. Checked: the loss falls in both stages, and the
``model.pt`` that comes out loads strictly into the network of ``inference.json``.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.bundle import ConfigParser

from monai_diffens.demo import load_truth
from monai_diffens.networks.weights import load_weights

ROOT = Path(__file__).resolve().parents[1]
SUBJECTS = {"sub-upenn01": "train", "sub-upenn03": "train", "sub-tcga06": "val"}
CROP = (48, 48, 48)  # what the fusion trains on, whole: the loss of random parts varies more than it falls
SHORT = {
    "max_epochs": 2,
    "iterations": 20,
    "batch_size": 2,
    "draws": 2,
    "refresh": 0,
    "val_interval": 2,
    "val_num_steps": 1,
    "val_region": [48, 48, 48],
    "preview_interval": 2,
    "progress": False,
    "warmup_steps": 5,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train every bundle that has both stages.

    Raises:
        SystemExit: with one line, when a step failed.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output_dir", type=Path, default=Path("train_smoke_output"))
    output = parser.parse_args(arguments).output_dir.resolve()
    scans = Path(os.environ.get("DIFFENS_DATA") or ROOT.parent / "shared" / "data")
    real = (scans / "participants.tsv").is_file()
    if not real:
        print(f"no scans at {scans} (set DIFFENS_DATA): training on nilearn's template, T1w only")
    dataset = output / "dataset"
    write_crops(scans if real else None, dataset)
    for bundle in sorted((ROOT / "bundles").iterdir()):
        if not all((bundle / "configs" / f"{name}.json").is_file() for name in ("train_planes", "train")):
            print(f"{bundle.name}: skipped, it has no training configs")
        elif not real and "translate" in bundle.name:
            print(f"{bundle.name}: skipped, it needs several contrasts and there is only the template")
        else:
            started = time.perf_counter()
            train(bundle, dataset, output / bundle.name)
            print(f"{bundle.name}: trained and loaded in {time.perf_counter() - started:.0f} s")


def write_crops(scans: Path | None, dataset: Path) -> None:
    """Central crops of every contrast of :data:`SUBJECTS`, or of the template under their names."""
    listed = []
    for subject, split in SUBJECTS.items():
        folder = dataset / subject / "anat"
        folder.mkdir(parents=True, exist_ok=True)
        if scans:
            for path in sorted((scans / subject / "anat").glob("*.nii.gz")):
                nib.save(_crop(nib.load(path)), folder / path.name)
        else:
            nib.save(_crop(_template()), folder / f"{subject}_T1w.nii.gz")
        listed.append({"participant_id": subject, "split": split})
    with (dataset / "participants.tsv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(listed[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(listed)


def train(bundle: Path, dataset: Path, output: Path) -> None:
    """Both stages of one bundle, and the checks.

    Raises:
        SystemExit: with one line, when a step failed.
    """
    planes = ["axial", "coronal", "sagittal"]
    common = {"dataset_dir": str(dataset)}
    run(bundle, "train_planes", {**SHORT, **common, "planes": planes, "output_dir": str(output / "planes")})
    weights = {plane: str(output / "planes") for plane in planes}
    fusion = {"plane_weights": weights, "iterations": 40, "crop_size": CROP[0]}
    run(bundle, "train", {**SHORT, **common, **fusion, "output_dir": str(output / "fusion")})
    for stage in ("planes", "fusion"):
        first, last = loss_at_ends(output / stage / "tensorboard")
        print(f"{bundle.name}, {stage}: mean loss {first:.3f} at the start, {last:.3f} at the end")
        if not last < first:
            raise SystemExit(f"{bundle.name}, {stage}: the loss did not fall")
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "train.json"))
    load_weights(parser.get_parsed_content("network_def"), output / "fusion" / "model.pt")


def run(bundle: Path, name: str, options: Mapping[str, Any]) -> None:
    """MONAI's own command for one config, with the options that it has.

    Raises:
        SystemExit: with one line, when the command failed.
    """
    config = bundle / "configs" / f"{name}.json"
    known = json.loads(config.read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(config)]
    command += ["--bundle_root", str(bundle)]
    command += [
        part
        for key, value in options.items()
        if key.split("#")[0] in known
        for part in (f"--{key}", str(value))
    ]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(f"{bundle.name}: {name}.json failed, see above")


def loss_at_ends(folder: Path) -> tuple[float, float]:
    """Mean training loss over the first and over the last quarter of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events: dict[int, float] = {}
    for file in folder.iterdir():
        reader = EventAccumulator(str(file)).Reload()
        if "train_loss" in reader.Tags()["scalars"]:
            events |= {event.step: event.value for event in reader.Scalars("train_loss")}
    losses = [events[step] for step in sorted(events)]
    quarter = max(1, len(losses) // 4)
    return float(np.mean(losses[:quarter])), float(np.mean(losses[-quarter:]))


def _template() -> nib.Nifti1Image:
    volume, affine = load_truth()
    return nib.Nifti1Image((volume.numpy() * 1000).astype(np.int16), affine)


def _crop(image: Any) -> Any:
    start = [max(0, (full - side) // 2) for full, side in zip(image.shape, CROP, strict=True)]
    return image.slicer[tuple(slice(s, s + side) for s, side in zip(start, CROP, strict=True))]


if __name__ == "__main__":
    main()

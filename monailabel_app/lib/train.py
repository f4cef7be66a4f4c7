"""Fine-tuning: a bundle's train.json on the sharp images of the studies folder, and the weights it gives."""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.others.generic import device_list

from lib.bundles import config_of, metadata_of, run_bundle
from lib.companions import patient_and_contrast
from lib.confinement import link_or_copy, workspace
from lib.devices import checked_device
from lib.parameters import checked_parameters
from lib.refusals import reason
from lib.studies import StudiesFolder
from monai_diffens.contrasts import TARGET
from monai_diffens.files import sha256_of
from monai_diffens.messages import InputRejected, say
from monai_diffens.transforms.input_gate import check_volume
from monai_diffens.transforms.target_grid import as_spacing, is_fine, spacing_factors

__all__ = ["FINE_TUNED", "FineTuneTask", "can_fine_tune", "fine_tuned_weights", "write_dataset"]

FINE_TUNED = "fine-tuned"
# Ids of train.json that a request may set, where the bundle has them.
TURNABLE = ("max_epochs", "iterations", "draws", "batch_size", "learning_rate", "seed")
NEEDED = {"init_weights", "dataset_dir", "output_dir", "max_epochs"}


def fine_tuned_weights(studies: Path, bundle: str) -> Path:
    """Where the weights that the last fine-tuning gave lie."""
    return workspace(studies, "weights", bundle) / "model.pt"


def can_fine_tune(bundle: Path) -> bool:
    """Whether a bundle's training can start from its own weights and takes a folder of data."""
    config_file = bundle / "configs" / "train.json"
    return config_file.is_file() and set(config_of(config_file)) >= NEEDED


class FineTuneTask(TrainTask):
    """Runs ``train.json`` of a bundle, started from the shipped weights.

    It learns from the images of the studies folder that are sharp already: named ``<patient>_<contrast>``, no
    coarser than the target along any axis, and no results themselves. The weights that come out are a choice
    of the model's ``weights`` from then on; the bundle stays as it was.

    Args:
        bundle: folder of the bundle.
    """

    def __init__(self, bundle: Path) -> None:
        super().__init__(metadata_of(bundle)["description"])
        self.bundle = bundle
        self.config_file = bundle / "configs" / "train.json"
        inference = config_of(bundle / "configs" / "inference.json")
        self.spacing = as_spacing(inference.get("target_spacing") or 1.0)
        values = config_of(self.config_file)
        # a bundle of several contrasts learns to make one of them from the others
        self.target = TARGET if values.get("contrasts") else None
        self.offered = {name: values[name] for name in TURNABLE if isinstance(values.get(name), int | float)}

    def config(self) -> dict[str, Any]:
        """What a request may set, with defaults."""
        return {"device": device_list(), **self.offered}

    def __call__(self, request: Mapping[str, Any], datastore: StudiesFolder) -> dict[str, Any]:
        """Fine-tune; runs in a process of its own, whose last lines the client can ask for.

        Raises:
            SystemExit: with one line: a wrong parameter, nothing to learn from, or the bundle stopped.
        """
        try:
            values = checked_parameters(request, self.offered)
            device = torch.device(checked_device(request.get("device")))
            with tempfile.TemporaryDirectory(dir=workspace(datastore.folder, "training")) as folder:
                count = write_dataset(datastore, Path(folder) / "dataset", self.spacing, self.target)
                output = Path(folder) / "output"
                run_bundle(
                    self.config_file,
                    "train",
                    {
                        **values,
                        "device": device,
                        "dataset_dir": str(Path(folder) / "dataset"),
                        "output_dir": str(output),
                        "init_weights": str(self.bundle / "models" / "model.pt"),
                    },
                )
                target = fine_tuned_weights(datastore.folder, self.bundle.name)
                digest = self.keep(output / "model.pt", target)
        except Exception as error:
            line = reason(error)
            if line is None:
                raise
            raise SystemExit(line) from None
        print(f"fine-tuned {self.bundle.name} on {count} images; weights {digest[:12]}", flush=True)
        return {"images": count, "sha256": digest}

    @staticmethod
    def keep(trained: Path, target: Path) -> str:
        """Move weights to where the model finds them, the hash beside them last; returns the hash.

        Weights without the hash of their own are not loaded, so a stop in between leaves nothing half new.
        """
        digest = sha256_of(trained)
        record = trained.with_name(trained.name + ".sha256")
        os.replace(trained, target)
        shutil.move(record, target.with_name(record.name))
        return digest


def write_dataset(
    studies: StudiesFolder, folder: Path, spacing: tuple[float, float, float], target: str | None = None
) -> int:
    """Lay out the sharp images of the studies folder as bundles train on: BIDS, with a participants.tsv.

    Patients get numbers for names. Every fifth patient is for validation; the only one is for both.

    Args:
        studies: the images.
        folder: made, and filled with links (copies where the file system has none).
        spacing: images coarser than this along an axis are left out, mm.
        target: patients without this contrast and another one on its grid are left out.

    Returns:
        Number of images.

    Raises:
        InputRejected: no image is sharp enough.
    """
    size = " x ".join(f"{length:g}" for length in spacing)
    patients = fine_images(studies, spacing)
    if not patients:
        raise InputRejected(say("nothing_to_learn", size=size))
    if target is not None:
        aligned = {patient: on_grid_of(target, contrasts) for patient, contrasts in patients.items()}
        patients = {patient: contrasts for patient, contrasts in aligned.items() if len(contrasts) > 1}
        if not patients:
            raise InputRejected(say("no_pair_to_learn", target=target, size=size))
    rows = []
    for number, contrasts in enumerate(patients.values()):
        for split in splits_of(number, len(patients)):
            subject = f"sub-{len(rows) + 1:04d}"
            for contrast, path in contrasts.items():
                place_image(path, folder / subject / "anat" / f"{subject}_{contrast}.nii.gz")
            rows.append((subject, split))
    with (folder / "participants.tsv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(("participant_id", "split"))
        writer.writerows(rows)
    return sum(len(contrasts) for contrasts in patients.values())


def fine_images(studies: StudiesFolder, spacing: tuple[float, float, float]) -> dict[str, dict[str, Path]]:
    """Patient to contrast to path, of the images that can be trained on; what is left out is printed."""
    patients: dict[str, dict[str, Path]] = {}
    for image in sorted(studies.list_images()):
        named = patient_and_contrast(image)
        if named is None or studies.is_synthetic(image):
            continue
        path = Path(studies.get_image_uri(image))
        try:
            affine = check_volume(path).affine
        except InputRejected as error:
            print(f"left out: {error}", flush=True)
            continue
        if is_fine(spacing_factors(affine, spacing)):
            patients.setdefault(named[0], {})[named[1]] = path
    return patients


def splits_of(number: int, count: int) -> tuple[str, ...]:
    """Splits of one of ``count`` patients: every fifth, or the last of fewer, is for validation."""
    if count == 1:
        return ("train", "val")
    last_of_few = count < 5 and number == count - 1
    return ("val",) if number % 5 == 4 or last_of_few else ("train",)


def place_image(path: Path, target: Path) -> None:
    """Link or copy a compressed image, and compress another."""
    if path.name.endswith(".gz"):
        link_or_copy(path, target)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.load(path), target)


def on_grid_of(target: str, contrasts: Mapping[str, Path]) -> dict[str, Path]:
    """Those of a patient's contrasts that have the target's shape and lie where it does, itself among them.

    Empty where the target is missing.
    """
    if target not in contrasts:
        return {}
    grid = nib.load(contrasts[target])
    kept = {}
    for contrast, path in contrasts.items():
        image = nib.load(path)
        if image.shape == grid.shape and np.allclose(image.affine, grid.affine, atol=1e-2):
            kept[contrast] = path
        else:
            print(f"left out: {path.name}: on another grid than {contrasts[target].name}", flush=True)
    return kept

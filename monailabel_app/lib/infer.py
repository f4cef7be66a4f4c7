"""One model of the server: a bundle's inference, run on images of the studies folder."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import torch
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.utils.others.generic import device_list

from lib.bundles import config_of, metadata_of, offered_parameters, run_bundle
from lib.companions import patient_and_contrast
from lib.confinement import link_or_copy, workspace
from lib.devices import checked_device
from lib.parameters import checked_parameters
from lib.studies import StudiesFolder
from lib.train import FINE_TUNED, fine_tuned_weights
from monai_diffens.messages import InputRejected, say

__all__ = ["ImageToImageTask"]

SHIPPED = "shipped"


class ImageToImageTask(InferTask):
    """Runs ``inference.json`` of a bundle as its command line does; the result is that command's file.

    So the result has its own grid and float32 intensities, says in its header that it is synthetic, and is
    the same, voxel by voxel, as that of the command line for the same file and parameters.

    Args:
        bundle: folder of the bundle.
        studies: where images come from and published results go.
    """

    def __init__(self, bundle: Path, studies: StudiesFolder) -> None:
        metadata = metadata_of(bundle)
        # "others": viewers would paint the result of a "segmentation" as labels
        super().__init__(InferType.OTHERS, labels=[], dimension=3, description=metadata["description"])
        self.bundle, self.studies = bundle, studies
        self.version = str(metadata["version"])
        self.config_file = bundle / "configs" / "inference.json"
        self.offered = offered_parameters(self.config_file)
        # what a bundle of several contrasts takes, by name; one of a single contrast has no such list
        self.contrasts = list(config_of(self.config_file).get("contrasts") or [])

    def config(self) -> dict[str, Any]:
        """What a request may set, with defaults; a list holds choices."""
        fine_tuned = fine_tuned_weights(self.studies.folder, self.bundle.name).is_file()
        return {
            "device": device_list(),
            **self.offered,
            "weights": [SHIPPED, FINE_TUNED] if fine_tuned else [SHIPPED],
            "publish": False,
        }

    def info(self) -> dict[str, Any]:
        """What a client is told about the model."""
        return {**super().info(), "version": self.version}

    def is_valid(self) -> bool:
        """Whether it can run."""
        return True

    def get_path(self, validate: bool = True) -> None:
        """No path: weights are not downloaded, replaced or deleted through the server."""

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Run one image.

        Args:
            request: ``image`` (a checked path), ``image_id`` (None for an upload), ``companions`` (contrast
                -> path), and parameters as :meth:`config` offers them.

        Returns:
            Path of the result, which the caller removes, and what is known about it.

        Raises:
            InputRejected: a parameter or the image cannot be worked on.
        """
        begin = time.time()
        inputs = ("image", "image_id", "companions")
        offered = {name: value for name, value in self.config().items() if name != "device"}
        given = {name: value for name, value in request.items() if name not in inputs}
        values = checked_parameters(given, offered)
        publish, weights = values.pop("publish"), values.pop("weights")
        name = self.published_name(request) if publish else None
        with tempfile.TemporaryDirectory(dir=workspace(self.studies.folder, "requests")) as folder:
            overrides = {
                **values,
                "device": torch.device(checked_device(request.get("device"))),
                "input": str(self.input_of(request, Path(folder))),
                "output_dir": str(Path(folder) / "output"),
            }
            if weights == FINE_TUNED:
                overrides["weights_file"] = str(fine_tuned_weights(self.studies.folder, self.bundle.name))
            lines = run_bundle(self.config_file, "inference", overrides)
            # the volume; maps of it (spread, weights) have its name and more
            results = sorted((Path(folder) / "output").glob("*.nii.gz"), key=lambda path: len(path.name))
            if not results:
                raise InputRejected(lines[-1] if lines else say("failed", kind="no result"))
            facts = self.describe(results[0], values | {"weights": weights})
            if name is not None:
                info = {"synthetic": True, "source": request["image_id"], **facts}
                stem = results[0].name.removesuffix(".nii.gz")
                for result in results:
                    part = result.name.removesuffix(".nii.gz").removeprefix(stem)
                    self.studies.publish(name + part, result, info)
            facts["published"] = name
            facts["latencies"] = {"total": round(time.time() - begin, 2)}
            return self.kept(results[0]), facts

    def input_of(self, request: Mapping[str, Any], folder: Path) -> Path:
        """What the bundle is given as input: the image, or a list of its patient's contrasts.

        Raises:
            InputRejected: the bundle takes several contrasts, and the image's name tells none of them.
        """
        image, image_id = Path(request["image"]), request.get("image_id")
        if self.contrasts:
            found = {
                name: Path(path) for name, path in request["companions"].items() if name in self.contrasts
            }
            if not found:
                wanted = ", ".join(self.contrasts)
                raise InputRejected(say("no_companions", name=image_id or "upload", contrasts=wanted))
            for path in found.values():
                link_or_copy(path, folder / path.name)
            case = patient_and_contrast(str(image_id))
            item = {"case": case and case[0], **{name: path.name for name, path in found.items()}}
            (folder / "case.json").write_text(json.dumps([item]), encoding="utf-8")
            return folder / "case.json"
        if image_id is None:  # noise is seeded by the name, and an upload's is a random one
            ending = ".nii.gz" if image.name.lower().endswith(".gz") else ".nii"
            link_or_copy(image, folder / f"upload{ending}")
            return folder / f"upload{ending}"
        return image

    def describe(self, result: Path, values: Mapping[str, Any]) -> dict[str, Any]:
        """What a client is told with the result: its grid, how it was made, and the warnings."""
        image = nib.load(result)
        told = result.with_name(result.name.removesuffix(".nii.gz") + ".json")
        return {
            **(json.loads(told.read_text(encoding="utf-8")) if told.is_file() else {}),
            "Model": self.bundle.name,
            "ModelVersion": self.version,
            "Parameters": dict(values),
            "Shape": list(image.shape),
            "Spacing": [round(float(size), 6) for size in nib.affines.voxel_sizes(image.affine)],
            "label_names": [],
        }

    def published_name(self, request: Mapping[str, Any]) -> str:
        """Id that the result is published under: ``<image>_<model>``.

        Raises:
            InputRejected: an image that is no result has it, or the image was only sent along.
        """
        if request.get("image_id") is None:
            instead = "add the image to the studies first"
            raise InputRejected(say("not_offered", what="publishing from an upload", instead=instead))
        name = f"{request['image_id']}_{self.bundle.name}"
        if self.studies.get_image_uri(name) and not self.studies.is_synthetic(name):
            raise InputRejected(say("name_taken", name=name))
        return name

    def kept(self, result: Path) -> str:
        """Move a result to where it survives its run until it has been sent."""
        handle, path = tempfile.mkstemp(
            prefix=result.name.removesuffix(".nii.gz") + "-",
            suffix=".nii.gz",
            dir=workspace(self.studies.folder, "temporary"),
        )
        os.close(handle)
        shutil.move(result, path)
        return path

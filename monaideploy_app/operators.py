"""Operators that take a scan through an image-to-image bundle, and keep what MONAI Deploy's own would lose.

An ``Image`` that passes between them has the form that MONAI Deploy's DICOM loader gives it: voxels in the
order slice, row, column (Z, Y, X), ``nifti_affine_transform`` from (x, y, z) to RAS+ mm, and pixel spacings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from monai.deploy.core import Image, Operator, OperatorSpec
from monai.deploy.operators import MonaiBundleInferenceOperator

__all__ = ["BundleOperator", "ScanLoaderOperator", "VolumeWriterOperator", "as_image", "as_volume"]

FILES = ("LoadScan", "SaveVolume", "SaveDicomSeries", "WriteReport")
CASE = ("case", "warnings", "facts")  # of a bundle's dictionary; they travel in an Image's metadata


def as_image(volume: MetaTensor, case: Mapping[str, Any]) -> Image:
    """Pack a volume (1, X, Y, Z) and what is known of its case.

    Args:
        volume: with its affine in RAS+ millimetres; its type is kept.
        case: of its items, those named in ``CASE`` are taken along.
    """
    affine = np.asarray(volume.affine, dtype=float)
    x, y, z = nib.affines.voxel_sizes(affine)
    metadata = {name: value for name, value in volume.meta.items() if name != "original_affine"}
    metadata |= {name: case[name] for name in CASE if name in case}
    metadata |= {
        "space": "RAS",
        "affine": affine,
        "nifti_affine_transform": affine,
        # as DICOM has it: rows follow each other along y, columns along x
        "row_pixel_spacing": float(y),
        "col_pixel_spacing": float(x),
        "depth_pixel_spacing": float(z),
    }
    return Image(np.swapaxes(volume.detach().cpu().numpy()[0], 0, 2), metadata)


def as_volume(image: Image) -> MetaTensor:
    """Unpack an image to (1, X, Y, Z) with its affine."""
    metadata = dict(image.metadata())
    affine = np.asarray(metadata.pop("affine"))
    voxels = np.ascontiguousarray(np.swapaxes(image.asnumpy(), 0, 2)[None])
    return MetaTensor(voxels, affine=affine, meta=metadata)


class ScanLoaderOperator(Operator):
    """Load one scan as the bundle does; not as MONAI Deploy 4.0.0, which swaps a series' pixel spacings.

    Output: ``image``, an ``Image``.
    """

    def __init__(
        self, fragment: Any, *args: Any, load: Callable[[Any], Any], case: Mapping[str, Any], **kwargs: Any
    ) -> None:
        """Take the bundle's loading transform and one case of its ``cases``."""
        self.load, self.case = load, case
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the ports."""
        spec.output("image")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Load and send it."""
        op_output.emit(as_image(self.load(self.case)["image"], self.case), "image")


class BundleOperator(MonaiBundleInferenceOperator):
    """MONAI Deploy's bundle operator, for bundles whose result is an image on a grid of its own.

    MONAI Deploy's casts a result to uint8 and gives it the input's metadata; it leaves out loading and saving
    transforms by MONAI's names only; and a bundle's paths begin at the working folder. The rest is as there:
    the bundle's configuration, weights, preprocessing, inferer and postprocessing.

    Input: ``image``; output: ``pred``, an ``Image`` of float32 with its own affine and spacings.
    """

    def _get_compose(self, obj_name: str, disallowed_prefixes: list[str]) -> Any:
        self._parser["bundle_root"] = str(self.bundle_path)
        return super()._get_compose(obj_name, [*disallowed_prefixes, *FILES])

    def pre_process(self, data: dict[str, MetaTensor], *args: Any, **kwargs: Any) -> Any:
        """Run the bundle's preprocessing on (X, Y, Z)."""
        volume = data["image"][None]
        known = {name: volume.meta.pop(name) for name in CASE if name in volume.meta}
        return super().pre_process({"image": volume, **known}, *args, **kwargs)

    def post_process(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the bundle's postprocessing; what it knows of the case stays with the result."""
        done = super().post_process(data, *args, **kwargs)
        done["pred"] = as_image(done["pred"], done)
        return done

    def _send_output(self, value: Image, name: str, metadata: Any, op_output: Any, context: Any) -> None:
        op_output.emit(value, name)


class VolumeWriterOperator(Operator):
    """Write a result as the bundle does.

    Input: ``pred``, an ``Image``.
    """

    def __init__(self, fragment: Any, *args: Any, save: Callable[[Any], Any], **kwargs: Any) -> None:
        """Take the bundle's saving transforms."""
        self.save = save
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the ports."""
        spec.input("pred")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Receive and write it."""
        volume = as_volume(op_input.receive("pred"))
        known = {name: volume.meta.pop(name) for name in CASE if name in volume.meta}
        self.save({"pred": volume, "image": volume, **known})

"""Restoring scans from Python: what goes in comes out, sharpened or in another contrast.

The code that is run is that of ``diffens`` and of ``python -m monai.bundle run inference``, checks of the
input included; options have the same names, values and defaults (``diffens sr --help``).
"""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Hashable, Mapping
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import MetaKeys, SpaceKeys
from numpy.typing import NDArray

from monai_diffens.bundle.folder import CONFIG, WEIGHTS, bundle_path, read_config
from monai_diffens.files import case_name, case_of
from monai_diffens.inference import open_inference, restore_cases
from monai_diffens.messages import InputRejected, say
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.weights import load_weights
from monai_diffens.options import checked_option, options_of, unknown_option, values_of

__all__ = ["DiffEnsembleRestored", "Model", "load_model", "super_resolve", "translate"]

SUPER_RESOLUTION, TRANSLATION = "sr", "translate"
NOT_HERE = ("input", "output_dir", "report", "share", "weights_file", "device")  # what a call itself decides


def super_resolve(
    image: Any, affine: Any = None, *, output_dir: str | PathLike[str] | None = None, **options: Any
) -> Any:
    """Sharpen a scan with thick slices.

    Args:
        image: path of a NIfTI file; a nibabel image; a ``MetaTensor`` (X, Y, Z) or (1, X, Y, Z); or an array
            or tensor (X, Y, Z) with its ``affine``. MR magnitudes in any unit, brain only.
        affine: (4, 4), voxel index to RAS+ mm, for an array without one.
        output_dir: where the result of a path goes; beside it when None.
        **options: as of ``diffens sr``: ``num_steps``, ``num_samples``, ``target_spacing``, ``force`` ...

    Returns:
        The same kind: path of the result, image or ``MetaTensor``; for an array the array and its affine.
        It lies where the scan lies, in the scan's units and the order of its axes.

    Raises:
        InputRejected: the scan cannot be worked on; one line that says why.
        OptionError: an option has a wrong name or value.

    Example:
        >>> from monai_diffens import super_resolve
        >>> from monai_diffens.demo import thick_scan
        >>> scan = thick_scan(crop=40)  # a nibabel image in 5 mm slices
        >>> scan.shape
        (40, 40, 8)
        >>> super_resolve(scan, num_steps=1).shape
        (40, 40, 40)
        >>> voxels, affine = super_resolve(scan.get_fdata(), scan.affine)
        >>> voxels.shape, affine.diagonal().tolist()
        ((40, 40, 40), [1.0, 1.0, 1.0, 1.0])
    """
    return load_model(SUPER_RESOLUTION).restore(image, affine, output_dir=output_dir, **options)


def translate(
    images: Mapping[str, Any],
    affine: Any = None,
    *,
    target: str = "FLAIR",
    output_dir: str | PathLike[str] | None = None,
    **options: Any,
) -> Any:
    """Make one contrast from others.

    Args:
        images: contrast -> scan, each as of :func:`super_resolve` and all of one kind: ``T1w``,
            ``ce-gadolinium_T1w``, ``T2w``, ``FLAIR``; the target's own in thick slices, where there is one.
        affine: of arrays without one; they lie on one grid.
        target: contrast to make.
        output_dir: where the result of paths goes; beside the first of them when None.
        **options: as of ``diffens translate``.

    Returns:
        The target, of the kind of the images; see :func:`super_resolve`.

    Raises:
        InputRejected: as :func:`super_resolve`.
        OptionError: as :func:`super_resolve`.

    Example:
        >>> from monai_diffens import translate
        >>> from monai_diffens.demo import thick_scan
        >>> scan = thick_scan(crop=40)
        >>> translate({"T1w": scan, "FLAIR": scan}, register="never").shape
        (40, 40, 40)
    """
    return load_model(TRANSLATION).restore(images, affine, target=target, output_dir=output_dir, **options)


@lru_cache(maxsize=4)
def load_model(task: str, device: str | None = None, bundle_root: str | None = None) -> Model:
    """Load a model once; further calls with the same arguments give the same one.

    Args:
        task: "sr" or "translate".
        device: "cpu", "cuda" or "cuda:N"; the first GPU where there is one, when None.
        bundle_root: folder of a bundle of your own; the installed one when None.

    Raises:
        BundleRejected: there is no such bundle.

    Example:
        >>> from monai_diffens import load_model
        >>> model = load_model("sr")
        >>> model is load_model("sr")
        True
        >>> model.network.planes
        ('axial', 'coronal', 'sagittal')
    """
    root = bundle_path(task) if bundle_root is None else Path(bundle_root)
    return Model(task, root, device)


class Model:
    """A bundle with its network loaded.

    Attributes:
        task: "sr" or "translate".
        root: folder of the bundle.
        device: where it computes.
        network: the network, on that device, in evaluation mode.
        defaults: the bundle's options with their defaults.
    """

    def __init__(self, task: str, root: Path, device: str | None = None) -> None:
        """Load the network of a bundle; see :func:`load_model`."""
        config = read_config(root)
        known = options_of(config)
        fallback = "cuda" if torch.cuda.is_available() else "cpu"
        self.task, self.root, self._config = task, root, config
        self.device: torch.device = checked_option(known["device"], device or fallback, config)
        self.defaults = {name: values_of(config)[name] for name in known if name not in NOT_HERE}
        arguments = {name: value for name, value in config["network_def"].items() if name != "_target_"}
        self.network = DiffEnsembler(**arguments)
        load_weights(self.network, root / WEIGHTS)
        self.network.to(self.device, torch.float32).eval()  # whatever a caller's default is

    def __repr__(self) -> str:
        return f"Model({self.task!r}, {self.root / CONFIG}, {self.device})"

    def restore(
        self,
        image: Any,
        affine: Any = None,
        *,
        output_dir: str | PathLike[str] | None = None,
        **options: Any,
    ) -> Any:
        """Restore one case; see :func:`super_resolve` and, for a mapping of contrasts, :func:`translate`."""
        typed = self.checked(options)
        scans = dict(image) if isinstance(image, Mapping) else {"image": image}
        if not scans or isinstance(image, Mapping) != (self.task == TRANSLATION):
            wanted = "a mapping of contrast to scan" if self.task == TRANSLATION else "one scan"
            raise InputRejected(f"{self.task}: {wanted} is needed")
        first = next(iter(scans.values()))
        to_disk = isinstance(first, str | PathLike)
        if output_dir is not None:
            if not to_disk:
                raise InputRejected(say("given_back"))
            output_dir = checked_option(options_of(self._config)["output_dir"], output_dir, self._config)
        with tempfile.TemporaryDirectory() as folder:
            paths = {}
            for number, (name, scan) in enumerate(scans.items()):  # files of one name would be one file
                (Path(folder) / str(number)).mkdir()
                paths[name] = _as_file(scan, affine, Path(folder) / str(number), case_name(str(name)))
            out = Path(output_dir) if output_dir is not None else paths[next(iter(paths))].parent
            out = out if to_disk else Path(folder) / "result"
            given = next(iter(paths.values()))
            if self.task == TRANSLATION:
                given = Path(folder) / "case.json"
                case = {name: str(path.resolve()) for name, path in paths.items()}
                given.write_text(json.dumps([case]), encoding="utf-8")
            where = {"input": str(given.resolve()), "output_dir": str(out.resolve()), "report": False}
            fixed = {"network_def": self.network, "device": self.device}
            result = restore_cases(open_inference(self.root, {**typed, **where, **fixed}))
            return _as_given(result, first)

    def checked(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Typed options.

        Raises:
            OptionError: a name or a value is wrong.
        """
        known = options_of(self._config)
        typed = {}
        for name, value in options.items():
            if name not in self.defaults:
                raise unknown_option(name, list(self.defaults), prefix="")
            typed[name] = checked_option(known[name], value, self._config)
            if known[name].kind == "path" and typed[name] is not None:
                typed[name] = str(Path(typed[name]).resolve())  # never a text that MONAI would run
        return typed


class DiffEnsembleRestored(MapTransform):
    """Restore volumes inside of a MONAI ``Compose``.

    With task "sr" every key's ``MetaTensor`` (1, X, Y, Z) is replaced by its restored one. With task
    "translate" the keys are names of contrasts; those that are there give the volume at ``output_key``.

    Args:
        keys: of the volumes.
        task: "sr" or "translate".
        output_key: where a translation goes; under the contrast's name when None.
        device: as of :func:`load_model`.
        allow_missing_keys: skip absent keys.
        **options: as of ``diffens``.

    Raises:
        OptionError: an option has a wrong name or value.

    Example:
        >>> from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
        >>> from monai_diffens import DiffEnsembleRestored
        >>> load = LoadImaged("t1", reader="NibabelReader")
        >>> pipeline = Compose([load, EnsureChannelFirstd("t1"), DiffEnsembleRestored("t1", seed=3)])
    """

    def __init__(
        self,
        keys: KeysCollection,
        task: str = SUPER_RESOLUTION,
        output_key: str | None = None,
        device: str | None = None,
        allow_missing_keys: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        model = load_model(task, device)
        self.task, self.device, self.options = task, device, model.checked(options)
        self.output_key = output_key or str((model.defaults | self.options).get("target"))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Restore every key, or make the output of all keys."""
        d = dict(data)
        model = load_model(self.task, self.device)
        if self.task == TRANSLATION:
            scans = {str(key): d[key] for key in self.key_iterator(d)}
            d[self.output_key] = model.restore(scans, **self.options)
            return d
        for key in self.key_iterator(d):
            d[key] = model.restore(d[key], **self.options)
        return d


def _as_file(scan: Any, affine: Any, folder: Path, name: str) -> Path:
    """A NIfTI file of what was given; a path stays itself."""
    has_affine = isinstance(scan, str | PathLike | MetaTensor | nib.spatialimages.SpatialImage)
    if has_affine and affine is not None:
        raise InputRejected(say("two_affines", name=name))
    if not has_affine and affine is None:
        raise InputRejected(f"{name}: an affine is needed with an array")
    if isinstance(scan, str | PathLike):
        if not str(scan).strip() or "\0" in str(scan):
            raise InputRejected(say("input_missing", name=repr(str(scan))))
        return Path(scan)
    wrong = (ValueError, TypeError, RuntimeError, nib.spatialimages.HeaderDataError)
    path = folder / f"{_case_of(scan, name)}.nii.gz"
    try:
        is_image = isinstance(scan, nib.spatialimages.SpatialImage)
        image = _unrounded(scan) if is_image else _placed(scan, affine, name)
    except InputRejected:
        raise
    except (*wrong, OSError, EOFError, zlib.error) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".: ")
        if not isinstance(error, wrong):  # of the image's file, and may name a folder
            why = "its file is gone, cut or damaged"
        raise InputRejected(say("not_an_image", name=name, why=why)) from error
    try:
        nib.save(image, path)
    except wrong as error:
        raise InputRejected(say("not_an_image", name=name, why=str(error))) from error
    return path


def _case_of(scan: Any, name: str) -> str:
    """Name of the file that an image came from, else ``name``."""
    if isinstance(scan, MetaTensor):
        source = scan.meta.get("filename_or_obj")
    else:
        source = scan.get_filename() if isinstance(scan, nib.spatialimages.SpatialImage) else None
    return case_of({"filename_or_obj": source}) if source else name


def _unrounded(scan: Any) -> nib.Nifti1Image:
    """An image as NIfTI; its header's own type may hold fewer values than the image."""
    image = nib.Nifti1Image.from_image(scan)
    voxels = np.asanyarray(scan.dataobj)
    voxels = voxels if voxels.dtype.kind in "ui" else _in_single(voxels)
    image = nib.Nifti1Image(voxels, image.affine, image.header)
    image.set_data_dtype(voxels.dtype)
    return image


def _placed(scan: Any, affine: Any, name: str) -> nib.Nifti1Image:
    """An array or a tensor with its affine as NIfTI."""
    if isinstance(scan, MetaTensor):
        affine = scan.affine
    # neither text nor complex numbers
    voxels, matrix = _numbers(scan), np.asarray(affine).astype(float, casting="same_kind")
    if isinstance(scan, MetaTensor) and scan.meta.get(MetaKeys.SPACE) == SpaceKeys.LPS:
        matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix
    if isinstance(scan, MetaTensor) and voxels.ndim == 4 and voxels.shape[0] == 1:
        voxels = voxels[0]
    if voxels.ndim != 3 or matrix.shape != (4, 4) or voxels.dtype.kind not in "buif":
        shapes = f"{voxels.shape} of {voxels.dtype} and {matrix.shape}"
        raise InputRejected(f"{name}: numbers (X, Y, Z) and an affine (4, 4) are needed, got {shapes}")
    usable = np.isfinite(matrix).all() and np.array_equal(matrix[3], [0, 0, 0, 1])
    if not usable or np.linalg.det(matrix[:3, :3]) == 0:
        raise InputRejected(say("affine", name=name, why="no affine in millimetres"))
    image = nib.Nifti1Image(_in_single(voxels), matrix)
    image.header.set_xyzt_units("mm")
    return image


def _numbers(scan: Any) -> NDArray[Any]:
    """An array or a tensor as an array.

    Raises:
        ValueError: some of its values are masked, or lazy transforms of it were never applied.
    """
    if isinstance(scan, MetaTensor) and scan.pending_operations:
        raise ValueError("its lazy transforms are pending: apply them")
    if np.ma.is_masked(scan):
        raise ValueError("it has masked values: fill them")
    if not isinstance(scan, torch.Tensor):
        return np.asarray(scan)
    plain = (scan.as_tensor() if isinstance(scan, MetaTensor) else scan).detach().cpu().to_dense()
    return np.asarray(plain.float() if plain.dtype == torch.bfloat16 else plain)


def _in_single(voxels: NDArray[Any]) -> NDArray[Any]:
    """Voxels in single precision, in which a result is; what are no real numbers stay as they are."""
    if voxels.dtype.kind not in "buif":
        return voxels
    with np.errstate(over="ignore"):  # what single precision cannot hold is counted by the input gate
        return voxels.astype(np.float32)


def _as_given(result: Path, first: Any) -> Any:
    """The result as the kind of what was given."""
    if isinstance(first, str | PathLike):
        return result
    image = nib.Nifti1Image.from_filename(result)
    voxels, affine = image.get_fdata(dtype=np.float32), np.asarray(image.affine)
    if isinstance(first, MetaTensor):
        volume = torch.from_numpy(voxels)
        shown = volume[None] if first.ndim == 4 else volume
        meta = {"filename_or_obj": first.meta.get("filename_or_obj", ""), MetaKeys.SPACE: SpaceKeys.RAS}
        return MetaTensor(shown.to(first.device), affine=torch.from_numpy(affine), meta=meta)
    if isinstance(first, torch.Tensor):
        return torch.from_numpy(voxels).to(first.device), torch.from_numpy(affine)
    if isinstance(first, nib.spatialimages.SpatialImage):
        return nib.Nifti1Image(voxels, affine, image.header)
    return voxels, affine

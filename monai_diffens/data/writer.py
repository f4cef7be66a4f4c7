"""Writing results: one NIfTI file and one JSON file per case, each whole or absent.

Why not MONAI's ``SaveImaged``: it writes under the final name, so a killed run leaves half a file that looks
finished; it sets sform and qform codes to 1 whatever the input said, and with a sheared affine a qform that
differs from the sform; and nothing in its file says that the image is synthetic.

Voxels are float32, also for an int16 input: a restored value lies between the input's integers and may lie
beyond its range, so integers would round or clip it; readers need no slope to get the values back.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ensure_tuple_rep

from monai_diffens.data.output_folder import VOXELS, sha256_of_voxels
from monai_diffens.files import NIFTI_ENDINGS, case_name, package_version, whole_or_absent
from monai_diffens.messages import InputRejected, say
from monai_diffens.transforms.nifti_file import CHECKED, RESULT_MARK, SHA256
from monai_diffens.transforms.nifti_header import is_sheared


def save_volume(
    array: np.ndarray | torch.Tensor,
    affine: np.ndarray | torch.Tensor,
    path: str | PathLike[str],
    *,
    sform_code: int = 2,
    qform_code: int = 0,
) -> Path:
    """Write a volume as float32 NIfTI, marked as synthetic, in one step that other processes see whole.

    The file is written under a hidden temporary name in the same folder, flushed to disk and renamed. Equal
    arguments give equal bytes. Missing folders are made.

    Args:
        array: (X, Y, Z), any real type.
        affine: (4, 4), voxel index to RAS+ millimetres.
        path: ends with ``.nii`` or ``.nii.gz``; an existing file is replaced (a link itself, not its target).
        sform_code: code of the sform, which always holds ``affine``; 0 becomes 2 ("aligned") where the qform
            is unset too, since a file without either has no position.
        qform_code: code of the qform; 0 where ``affine`` is sheared, since no qform can hold it.

    Returns:
        ``path``.

    Raises:
        ValueError: wrong shape, wrong file ending or a singular affine.
        InputRejected: values that are not finite.
        OSError: the file could not be written; nothing is left under ``path`` that was not there before.
    """
    path = Path(path)
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu().float().numpy()
    voxels = np.asarray(array, dtype=np.float32)
    matrix = np.asarray(affine, dtype=float)
    if voxels.ndim != 3 or matrix.shape != (4, 4):
        raise ValueError(
            f"a (X, Y, Z) volume and a (4, 4) affine are needed, got {voxels.shape}, {matrix.shape}"
        )
    if not path.name.endswith(NIFTI_ENDINGS):
        raise ValueError(f"{path.name}: a result's name ends with .nii or .nii.gz")
    if not np.isfinite(voxels).all():
        percent = 100 * float((~np.isfinite(voxels)).mean())
        raise InputRejected(say("not_finite_result", name=path.name, percent=percent))
    if not np.isfinite(matrix).all() or np.linalg.det(matrix[:3, :3]) == 0:
        raise ValueError(f"{path.name}: the affine is singular, nothing was written")

    qform_code = 0 if is_sheared(matrix) else int(qform_code)
    image = nib.Nifti1Image(voxels, matrix)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = RESULT_MARK + f" {package_version()}".encode()[:40]
    image.set_qform(matrix if qform_code else None, qform_code)
    image.set_sform(matrix, int(sform_code) if sform_code or qform_code else 2)
    with whole_or_absent(path) as file:
        if path.name.endswith(".gz"):  # no name and no time in the header: equal volumes give equal bytes
            with gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as zipped:
                image.to_stream(zipped)
        else:
            image.to_stream(file)
    return path


class SaveVolumed(MapTransform):
    """Write ``pred`` and a JSON file that tells how it was made; before it the maps that belong to it.

    ``data[key]`` is a ``MetaTensor`` (1, X, Y, Z) with its affine in RAS+ millimetres. The name comes from
    ``data["case"]`` (given by :class:`~monai_diffens.data.cases.CaseFolder`), else from
    ``meta["filename_or_obj"]``; form codes from ``meta["sform_code"]`` and ``meta["qform_code"]``.

    The last key is the result. Its JSON file and the other keys are written first, so that a result under
    its final name is complete. The JSON file holds what the result was synthesised from (``data["sources"]``,
    file names, else the source file), the SHA-256 of these files as they were checked and read, the version,
    ``meta["sampling"]`` (a dict), what :class:`~monai_diffens.transforms.describe.DescribeResultd` put into
    ``data["facts"]``, the names of the maps, and ``data["warnings"]``.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        *,
        output_dir: str | PathLike[str],
        suffix: str | Sequence[str] = "sr",
        allow_missing_keys: bool = False,
    ) -> None:
        """Take the keys to write, the folder to write to and a name suffix for all keys or for each.

        Raises:
            ValueError: two keys would be written under one name.
        """
        super().__init__(keys, allow_missing_keys)
        self.output_dir = Path(str(output_dir))  # a folder named 2024 comes off the command line as a number
        self.suffixes = ensure_tuple_rep(suffix, len(self.keys))
        if len(set(self.suffixes)) < len(self.keys):
            raise ValueError(f"{len(self.keys)} keys need as many different suffixes, got {self.suffixes}")

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """Write one case; ``data`` is returned unchanged.

        Raises:
            TypeError: an item is not a MetaTensor, so its position is unknown.
            ValueError: an item has not exactly one channel, or as :func:`save_volume`.
            InputRejected: the case name could lead out of the output folder.
        """
        out = dict(data)
        maps: list[str] = []
        for key, suffix in self.key_iterator(out, self.suffixes):
            volume = out[key]
            if not isinstance(volume, MetaTensor):
                raise TypeError(f"{key}: a MetaTensor is needed, a {type(volume).__name__} has no affine")
            if volume.ndim != 4 or volume.shape[0] != 1:
                raise ValueError(f"{key}: shape (1, X, Y, Z) is needed, got {tuple(volume.shape)}")
            source = Path(str(volume.meta.get("filename_or_obj", ""))).name
            case = str(out.get("case") or case_name(source))
            path = output_path(self.output_dir, case, suffix)
            if key == self.keys[-1]:
                facts = {
                    "Synthetic": True,
                    "Notice": "synthetic - not for primary diagnosis",
                    "SynthesizedFrom": list(out.get("sources") or []) or source or case,
                    "InputSHA256": dict(out.get(CHECKED) or _hash_of(volume)),
                    VOXELS: sha256_of_voxels(volume.as_tensor()[0].detach().cpu().float().numpy()),
                    "GeneratedBy": [{"Name": "Diff-Ensembler", "Version": package_version()}],
                    "Sampling": volume.meta.get("sampling", {}),
                    **(out.get("facts") or {}),
                    "Maps": maps,
                    # an empty list comes out of a DataLoader as None
                    "Warnings": list(out.get("warnings") or []),
                }
                with whole_or_absent(path.with_name(path.name.removesuffix(".nii.gz") + ".json")) as file:
                    file.write((json.dumps(facts, indent=2, default=_plain) + "\n").encode())
            maps.append(path.name)
            save_volume(
                volume.as_tensor()[0],
                volume.affine,
                path,
                sform_code=int(volume.meta.get("sform_code", 0)),
                qform_code=int(volume.meta.get("qform_code", 0)),
            )
        return out


def _hash_of(volume: MetaTensor) -> dict[str, str]:
    """Of the file that a volume without a checked item came from."""
    return {"image": str(volume.meta[SHA256])} if SHA256 in volume.meta else {}


def output_path(output_dir: str | PathLike[str], case: str, suffix: str) -> Path:
    """Return where a case's result lies: ``<output_dir>/<case>_<suffix>.nii.gz``.

    Raises:
        InputRejected: ``case`` or ``suffix`` is not a plain name (a folder, a leading dot, a control sign).
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", suffix):
        raise InputRejected(say("bad_suffix", name=repr(suffix)))
    if case != case_name(case):
        raise InputRejected(say("bad_case", name=repr(case)))
    return Path(output_dir) / f"{case}_{suffix}.nii.gz"


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)

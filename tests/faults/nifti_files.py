"""Small sound NIfTI files, and ways to put other bytes into their headers."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_diffens.messages import InputRejected
from monai_diffens.transforms.input_gate import check_volume


def head(shape=(24, 28, 10)) -> np.ndarray:
    """An ellipsoid with an uneven inside on 0, int16."""
    grid = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in shape), indexing="ij")
    return (1000 * np.clip(1.2 - sum(g**2 for g in grid), 0, 1) * (1 + 0.3 * np.sin(9 * grid[0]))).astype(
        np.int16
    )


def save(path: Path, voxels=None, affine=None, sform=1, qform=1, kind=nib.Nifti1Image) -> Path:
    """Write a 1 x 1 x 5 mm scan."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = kind(head() if voxels is None else voxels, np.diag([1, 1, 5, 1.0]) if affine is None else affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(image.affine, qform)
    image.set_sform(image.affine, sform)
    image.to_filename(path)
    return path


def edit(path: Path, **fields) -> Path:
    """Set fields of a NIfTI-1 file's header as they are, nothing mended; ``dim_4=0`` is one of several."""
    data = path.read_bytes()
    header = nib.Nifti1Header(data[:348], check=False)
    for name, value in fields.items():
        field, _, index = name.rpartition("_") if name[-1].isdigit() and "_" in name else (name, "", "")
        if index:
            header[field][int(index)] = value
        else:
            header[name] = value
    path.write_bytes(header.binaryblock + data[348:])
    return path


def key_of(error: BaseException) -> str:
    """The line, without the file's name."""
    return str(error).split(": ", 1)[1]


def rejection(path: Path, **options) -> str:
    """The one line with which a file is rejected; it names no folder."""
    with pytest.raises(InputRejected) as error:
        check_volume(path, **options)
    line = str(error.value)
    assert len(line.splitlines()) == 1 and line.startswith(path.name) and str(path.parent) not in line
    return line

"""Small made-up scans of thick slices, and runs over them."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.data import MetaTensor

from monai_diffens.data.cases import CaseFolder
from monai_diffens.data.writer import SaveVolumed


def head(shape=(20, 24, 10)) -> np.ndarray:
    """Return an ellipsoid on 0, int16."""
    grid = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in shape), indexing="ij")
    return (1000 * np.clip(1 - sum(g**2 for g in grid), 0, 1)).astype(np.int16)


def save(path: Path, array=None, slices=5) -> Path:
    """Write a scan with thick slices, their spacing in mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(head() if array is None else array, np.diag([1, 1, slices, 1.0]))
    image.header.set_xyzt_units("mm")
    image.to_filename(path)
    return path


def write(cases: CaseFolder) -> None:
    """Give every case a result and its record."""
    for item in cases.items:
        data = {**item, "pred": MetaTensor(head()[None].astype(np.float32), np.eye(4))}
        if cases.recipe is not None:
            data["facts"] = {
                "Sampling": dict(cases.recipe.parameters),
                "WeightsSHA256": cases.recipe.weights_sha256(),
            }
        SaveVolumed("pred", output_dir=cases.output_dir, suffix=cases.suffix)(data)


def stops(cases: CaseFolder, capsys) -> str:
    """Return the one line with which a run stops at once."""
    with pytest.raises(SystemExit) as stop:
        _ = cases.items
    assert stop.value.code == 1
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    return err

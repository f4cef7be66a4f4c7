"""Small made-up scans of thick slices, and runs over them."""

from dataclasses import fields
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.data import MetaTensor

from monai_diffens.data.case_list import Reading, Results
from monai_diffens.data.cases import CaseFolder
from monai_diffens.data.writer import SaveVolumed
from monai_diffens.messages import InputRejected


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
        if cases.results.recipe is not None:
            data["facts"] = {
                "Sampling": dict(cases.results.recipe.parameters),
                "WeightsSHA256": cases.results.recipe.weights_sha256(),
            }
        SaveVolumed("pred", output_dir=cases.output_dir, suffix=cases.suffix)(data)


def cases_with(kind, *args, **options):
    """Cases with options, each in the group that it belongs to."""
    reading, results = (
        group(**{field.name: options.pop(field.name) for field in fields(group) if field.name in options})
        for group in (Reading, Results)
    )
    return kind(*args, reading=reading, results=results, **options)


def stops(cases: CaseFolder, capsys) -> str:
    """Return the one line with which a run stops at once."""
    with pytest.raises(InputRejected) as stop:
        _ = cases.items
    line = str(stop.value)
    assert capsys.readouterr() == ("", "") and len(line.splitlines()) == 1
    return line

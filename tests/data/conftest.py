"""A folder of small scans."""

from pathlib import Path

import numpy as np
import pytest
from thick_scans import save


@pytest.fixture
def scans(tmp_path) -> Path:
    """Return a folder with two scans and one of NaN."""
    for name in ("b.nii.gz", "a.nii"):
        save(tmp_path / "in" / name)
    save(tmp_path / "in" / "nan.nii.gz", np.full((8, 8, 8), np.nan, np.float32))
    return tmp_path / "in"

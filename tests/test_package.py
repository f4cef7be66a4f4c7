"""The package as installed, and the fixtures the other tests stand on."""

from importlib.metadata import version
from pathlib import Path

import nibabel as nib
import numpy as np

import monai_diffens


def test_installed_version_is_the_one_in_the_source():
    assert version("monai-diffens") == monai_diffens.__version__


def test_every_folder_with_code_is_a_package_so_the_wheel_holds_it():
    root = Path(monai_diffens.__file__).parent
    assert {p.parent for p in root.rglob("*.py")} == {p.parent for p in root.rglob("__init__.py")}


def test_crop_lies_where_it_lay_in_the_scan(crop_path, data_dir):
    crop = nib.load(crop_path)
    scan = nib.load(data_dir / "sub-upenn01" / "anat" / "sub-upenn01_T1w.nii.gz")
    corner = np.linalg.solve(scan.affine, crop.affine[:, 3])[:3].round().astype(int)
    window = tuple(slice(c, c + side) for c, side in zip(corner, crop.shape, strict=True))
    assert crop.shape == (48, 56, 40)
    np.testing.assert_array_equal(crop.get_fdata(), scan.get_fdata()[window])

"""Loading NIfTI files and DICOM series through one transform."""

import json
import logging

import mr_series
import nibabel as nib
import numpy as np
import pytest
from monai.transforms import LoadImaged

from monai_diffens.data.load_scan import LoadScan, LoadScand
from monai_diffens.messages import InputRejected

TILTED = np.eye(4)
TILTED[:3, :3] = nib.eulerangles.euler2mat(z=0.2, x=0.3) * [0.9, 1.1, 5]
TILTED[:3, 3] = (-12, 34, 5.5)


@pytest.mark.parametrize("slope", [1, 0.25])
def test_a_folder_with_one_series(tmp_path, slope):
    image = mr_series.thick_head(TILTED)
    slices = mr_series.series(image, slope=slope)
    volume = LoadScand()({"image": mr_series.write(slices, tmp_path)})["image"]
    assert volume.shape == (1, 24, 28, 8)
    np.testing.assert_array_equal(volume[0], image.get_fdata())
    np.testing.assert_allclose(volume.affine, TILTED, atol=1e-6)
    assert volume.meta["filename_or_obj"] == mr_series.result_name(slices)
    assert len(json.loads(volume.meta["dicom_files"])) == 8


def test_each_slice_has_its_own_slope(tmp_path):
    slices = mr_series.series(mr_series.thick_head())
    for number, one in enumerate(slices):
        one.RescaleSlope, one.RescaleIntercept = number + 1, 0
    volume = LoadScan()(mr_series.write(slices, tmp_path))
    np.testing.assert_array_equal(volume[0], mr_series.thick_head().get_fdata() * np.arange(1, 9))


def test_a_folder_with_two_series(tmp_path):
    for number in range(2):
        mr_series.write(mr_series.series(mr_series.thick_head()), tmp_path / str(number))
    with pytest.raises(InputRejected, match="2 DICOM series in this folder"):
        LoadScan()(tmp_path)


def test_nifti_files_load_as_before(tmp_path):
    paths = [tmp_path / f"{name}.nii.gz" for name in "ab"]
    for path in paths:
        nib.save(mr_series.thick_head(TILTED), path)
    before = LoadImaged("image", ensure_channel_first=True)
    for given in (paths[0], str(paths[0]), paths):  # several files are channels
        old, new = (load({"image": given})["image"] for load in (before, LoadScand()))
        np.testing.assert_array_equal(old, new)
        np.testing.assert_array_equal(old.affine, new.affine)
        assert old.meta["filename_or_obj"] == new.meta["filename_or_obj"]


def test_nothing_is_warned_of(caplog):
    level = logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").level
    LoadScand()
    assert caplog.records == []
    assert logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").level == level

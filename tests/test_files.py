"""Files are written whole or not at all, and what holds a patient's data is its owner's alone."""

import os
import stat
from pathlib import Path

import mr_series
import numpy as np
import pytest

from monai_diffens.data.dicom.writer import save_series
from monai_diffens.data.writer import save_volume
from monai_diffens.files import folder_whole_or_absent, whole_or_absent

pytestmark = pytest.mark.skipif(os.name != "posix", reason="permissions of Unix")


@pytest.fixture(autouse=True)
def open_mask():
    """The most open mask that a user may have."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_result_is_its_owners_alone(tmp_path):
    path = tmp_path / "new" / "sub-01_sr.nii.gz"
    with whole_or_absent(path) as file:
        assert {mode(part) for part in path.parent.iterdir()} == {0o600}  # from the first byte on
        file.write(b"x")
    assert mode(path) == 0o600 and mode(path.parent) == 0o700


def test_also_over_one_that_all_could_read(tmp_path):
    path = tmp_path / "sub-01_sr.json"
    path.write_text("old")
    path.chmod(0o644)
    folder = mode(tmp_path)
    with whole_or_absent(path) as file:
        file.write(b"new")
    assert mode(path) == 0o600 and path.read_text() == "new"
    assert mode(tmp_path) == folder  # a folder that is there is the user's to open or close


def test_a_derived_series_is_its_owners_alone(tmp_path):
    folder = tmp_path / "new" / "series_sr"
    for content in (b"1", b"2"):  # also over an earlier one
        with folder_whole_or_absent(folder) as part:
            assert mode(part) == 0o700
            (part / "0001.dcm").write_bytes(content)
        assert mode(folder) == 0o700 and mode(folder / "0001.dcm") == 0o600
        assert (folder / "0001.dcm").read_bytes() == content
    assert mode(folder.parent) == 0o700


def test_what_holds_nothing_of_a_patient_is_shared(tmp_path):
    path = tmp_path / "dist" / "bundle.zip"
    with whole_or_absent(path, shared=True) as file:
        file.write(b"x")
    assert mode(path) == 0o666 and mode(path.parent) == 0o777


def test_nothing_is_left_of_a_failure(tmp_path):
    for writing in (whole_or_absent(tmp_path / "a" / "x.json"), folder_whole_or_absent(tmp_path / "a" / "y")):
        with pytest.raises(ValueError, match="mine"), writing:
            raise ValueError("mine")
    assert list((tmp_path / "a").iterdir()) == []


def test_the_writers_of_results_go_through_it(tmp_path):
    head = mr_series.thick_head()
    files = sorted(mr_series.write(mr_series.series(head), tmp_path / "in").iterdir())
    volume = head.get_fdata(dtype=np.float32)
    path = save_volume(volume, head.affine, tmp_path / "out" / "a_sr.nii.gz")
    save_series(volume, head.affine, files, tmp_path / "series" / "a_sr", model="m")
    assert mode(path) == 0o600 and mode(path.parent) == 0o700
    written = list((tmp_path / "series" / "a_sr").iterdir())
    assert len(written) == len(files) and {mode(file) for file in written} == {0o600}
    assert mode(tmp_path / "series" / "a_sr") == 0o700

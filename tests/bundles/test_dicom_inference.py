"""The inference command on DICOM series made of a real scan: one good, others that are no whole stack."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import itk
import mr_series
import nibabel as nib
import numpy as np
import pydicom
import pytest
from bad_files import FACTOR, real_scan


@pytest.fixture(scope="module")
def thick(data_dir_or_none) -> nib.Nifti1Image:
    """A real scan with 5 mm slices, lying askew."""
    affine = np.eye(4)
    affine[:3, :3] = nib.eulerangles.euler2mat(z=0.2, x=0.35) * [1, 1, FACTOR]
    affine[:3, 3] = (-21, 14, 33)
    return nib.Nifti1Image(np.asanyarray(real_scan(data_dir_or_none).dataobj), affine)


def bad_series(thick: nib.Nifti1Image) -> dict[str, list[pydicom.Dataset]]:
    """A series with a gap, one with two slices twice, one of two kinds; by what is said of it."""
    gap, twice, mixed = (mr_series.series(thick) for _ in range(3))
    del gap[4]
    again = mr_series.series(thick)
    for one in again:
        for attribute in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
            setattr(one, attribute, twice[0][attribute].value)
    for one in mixed[2:4]:
        one.EchoTime = 90
    return {
        "slices are missing or unevenly spaced, from": gap,
        "2 slices lie where another does, at": [*twice, again[1], again[3]],
        "mixed series, 2 of 8 slices differ from the others in EchoTime, at": mixed,
    }


class Ended(NamedTuple):
    """A run over a good series and bad ones.

    Attributes:
        done: the process.
        out: folder of the results.
        good: the series that has one.
        bad: the others, by what is said of them.
    """

    done: subprocess.CompletedProcess[str]
    out: Path
    good: list[pydicom.Dataset]
    bad: dict[str, list[pydicom.Dataset]]

    @property
    def case(self) -> str:
        return mr_series.result_name(self.good)


@pytest.fixture(scope="module")
def ended(bundle, thick, run_inference, tmp_path_factory) -> Ended:
    base = tmp_path_factory.mktemp("dicom")
    patient = base / "in" / mr_series.PATIENT_NAME
    good = mr_series.series(thick)
    mr_series.write(good, patient / "good")
    bad = bad_series(thick)
    for number, one in enumerate(bad.values()):
        mr_series.write(one, patient / f"bad{number}")
    return Ended(
        run_inference(bundle, base, input=base / "in", output_dir=base / "out"), base / "out", good, bad
    )


@pytest.mark.slow
@pytest.mark.bad_input(27)
def test_series_in_and_derived_series_out(ended, thick, got):
    done, out, good, bad = ended
    told = done.stdout + done.stderr
    assert done.returncode == 1 and "Traceback" not in told, told
    assert "1 done, 0 skipped (result already there), 3 rejected, 0 failed" in done.stdout
    for words, one in bad.items():
        assert f"rejected: {mr_series.result_name(one)}: {words}" in done.stdout
    got(next(line for line in done.stdout.splitlines() if line.startswith("rejected: "))[10:])

    case = ended.case
    assert {f"{case}_sr{end}" for end in ("", ".json", ".nii.gz")} <= {p.name for p in out.iterdir()}
    pages = [page.read_text() for kind in ("*.json", "*.html") for page in out.glob(kind)]
    texts = [told, *pages, *(p.name for p in out.rglob("*"))]
    assert not [text for text in texts for name in ("Müller", "PID-4711", "ACC-99", "House") if name in text]

    nifti = nib.load(out / f"{case}_sr.nii.gz")
    np.testing.assert_allclose(nib.affines.voxel_sizes(nifti.affine), 1, atol=1e-4)
    names = itk.GDCMSeriesFileNames.New()
    names.SetDirectory(str(out / f"{case}_sr"))
    (uid,) = names.GetSeriesUIDs()
    image = itk.imread(list(names.GetFileNames(uid)))
    index = [[0, 0, 0], *(np.array(nifti.shape) - 1) * np.eye(3, dtype=int)]
    for corner in index:  # the same millimetres, by ITK's reckoning
        left, back, head = image.TransformIndexToPhysicalPoint([int(i) for i in corner])
        np.testing.assert_allclose(
            (-left, -back, head), nib.affines.apply_affine(nifti.affine, corner), atol=1e-3
        )
    voxels = np.asarray(itk.array_from_image(image)).T
    np.testing.assert_allclose(voxels, nifti.get_fdata(), atol=0.51)
    middles = [nib.affines.apply_affine(i.affine, (np.array(i.shape) - 1) / 2) for i in (thick, nifti)]
    np.testing.assert_allclose(*middles, atol=1e-3)

    files = sorted((out / f"{case}_sr").iterdir())
    derived = pydicom.dcmread(files[0])
    assert derived.StudyInstanceUID == good[0].StudyInstanceUID and uid != good[0].SeriesInstanceUID
    assert "diffensembler_sr" in derived.SeriesDescription


@pytest.mark.slow
def test_a_derived_series_conforms_to_dicom(ended):
    if shutil.which("dciodvfy") is None:
        assert not os.environ.get("DIFFENS_DCIODVFY_REQUIRED"), "dciodvfy is not installed"
        pytest.skip("dciodvfy is not installed")
    file = min((ended.out / f"{ended.case}_sr").iterdir())
    told = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, text=True, check=False).stderr
    assert told.splitlines() == ["MRImage"]

"""Rows of docs/bad_inputs.md through the real command line, on files made from a real scan.

Many rows share one run over a folder: each is a file in it, and the run must tell of each by itself.
"""

import json
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
from bad_files import FACTOR, SIZE, real_scan, write_all, write_for_options

pytestmark = pytest.mark.slow

THICK_MM = 0.05


class Run(NamedTuple):
    """A finished run over a folder."""

    scans: Path
    out: Path
    stdout: str
    stderr: str
    returncode: int

    def reason(self, name: str) -> str:
        """The one line with which a file was rejected."""
        lines = [line for line in self.stdout.splitlines() if line.startswith(f"rejected: {name}.")]
        assert len(lines) == 1, self.stdout
        assert not list(self.out.glob(f"{name}_*")), "a result was written"
        return lines[0].removeprefix("rejected: ")

    def result(self, name: str) -> nib.Nifti1Image:
        return nib.load(self.out / f"{name}_sr.nii.gz")

    def warning(self, name: str, word: str) -> str:
        """The one warning with this word, in the sidecar and in the log alike."""
        facts = json.loads((self.out / f"{name}_sr.json").read_text())
        found = [line for line in facts["Warnings"] if word in line]
        assert len(found) == 1, facts["Warnings"]
        assert f"WARNING {name}: {found[0]}" in self.stdout
        return found[0]


@pytest.fixture(scope="module")
def scan(data_dir_or_none) -> nib.Nifti1Image:
    return real_scan(data_dir_or_none)


@pytest.fixture(scope="module")
def plain(bundle, scan, run_inference, tmp_path_factory) -> Run:
    """One run over all files with the default options."""
    base = tmp_path_factory.mktemp("patient_doe")
    (base / "in").mkdir()
    write_all(base / "in", scan)
    done = run_inference(
        bundle, base, input=base / "in", output_dir=base / "out", fusion="axial", report=False
    )
    return Run(base / "in", base / "out", done.stdout, done.stderr, done.returncode)


@pytest.fixture(scope="module")
def with_options(bundle, scan, run_inference, tmp_path_factory) -> Run:
    """One run with what users may ask for."""
    base = tmp_path_factory.mktemp("options")
    (base / "in").mkdir()
    (base / "masks").mkdir()
    write_for_options(base / "in", base / "masks", scan)
    asked = {
        "force": True,
        "fill_nan": True,
        "volume": 0,
        "mask": base / "masks",
        "fusion": "axial",
        "report": False,
    }
    done = run_inference(bundle, base, input=base / "in", output_dir=base / "out", **asked)
    return Run(base / "in", base / "out", done.stdout, done.stderr, done.returncode)


@pytest.mark.parametrize(
    ("row", "name", "words"),
    [
        pytest.param(row, name, words, marks=pytest.mark.bad_input(row), id=name)
        for row, name, words in [
            (1, "r01_flat", "2D image|3D volume is needed"),
            (3, "r03_series", "holds 2 volumes|--volume N"),
            (4, "r04_nan", "NaN|--fill_nan True"),
            (5, "r05_constant", "every voxel has the value 7"),
            (6, "r06_empty", "empty file"),
            (7, "r07_cut", "truncated or corrupt"),
            (8, "r08_picture", "a PNG image, not a NIfTI volume"),
            (8, "r08_named_wrong", "rename it to end with .nii.gz"),
            (13, "r13_zero", "unusable geometry|zero"),
            (13, "r13_singular", "unusable geometry|zero"),
            (18, "r18_11mm", "11 target voxels, more than the 10"),
            (21, "r21_ct", "as in CT|force"),
            (29, "r29_link", "leads out of the input folder"),
        ]
    ],
)
def test_rejected_in_one_line_without_a_result(plain, got, row, name, words):
    reason = plain.reason(name)
    got(reason)
    assert all(word in reason for word in words.split("|")), reason
    assert plain.returncode == 1


@pytest.mark.bad_input(2)
def test_one_volume_in_four_dimensions(plain, scan, got):
    got(plain.warning("r02_one_volume", "taken as 3D"))
    assert plain.result("r02_one_volume").shape == SIZE


@pytest.mark.bad_input(3)
def test_a_volume_is_picked(with_options, got):
    got(with_options.warning("r03_series", "volume 0 of 2"))
    assert with_options.result("r03_series").get_fdata().max() > 0


@pytest.mark.bad_input(4)
def test_nan_is_filled_where_asked(with_options, got):
    got(with_options.warning("r04_nan", "taken as 0"))
    assert np.isfinite(with_options.result("r04_nan").get_fdata()).all()


@pytest.mark.bad_input(9)
def test_an_empty_mask(with_options, got):
    got(with_options.warning("r09_empty_mask", "whole volume"))
    assert left_half(with_options.result("r09_empty_mask")).max() > 0


@pytest.mark.bad_input(10)
def test_a_mask_on_another_grid(with_options, got):
    got(with_options.warning("r10_other_grid", "another grid"))
    result = with_options.result("r10_other_grid")
    assert result.shape == SIZE
    assert left_half(result).max() == 0 and result.get_fdata().max() > 0


@pytest.mark.bad_input(12)
def test_sheared(plain, got):
    got(plain.warning("r12_sheared", "sheared"))
    given, result = nib.load(plain.scans / "r12_sheared.nii.gz"), plain.result("r12_sheared")
    assert result.header["qform_code"] == 0 and result.header["sform_code"] == given.header["sform_code"]
    np.testing.assert_allclose(result.affine[:3, :3] * (1, 1, FACTOR), given.affine[:3, :3], atol=1e-3)


@pytest.mark.bad_input(14)
def test_two_places(plain, scan, got):
    got(plain.warning("r14_two_places", "sform used"))
    assert_in_place(plain.result("r14_two_places"), scan)


@pytest.mark.bad_input(15)
def test_no_place(plain, got):
    got(plain.warning("r15_no_place", "assumed"))
    assert plain.result("r15_no_place").header["sform_code"] == 2


@pytest.mark.bad_input(16)
@pytest.mark.parametrize(("name", "word"), [("r16_micron", "converted"), ("r16_unknown", "no unit")])
def test_units(plain, scan, got, name, word):
    got(plain.warning(name, word))
    assert plain.result(name).header.get_xyzt_units()[0] == "mm"
    assert_in_place(plain.result(name), scan)


@pytest.mark.bad_input(18)
def test_thicker_than_trained(plain, got):
    got(plain.warning("r18_7mm", "beyond the trained"))
    assert plain.result("r18_7mm").shape[2] == 7 * SIZE[2] // FACTOR


@pytest.mark.bad_input(21)
def test_force(with_options, got):
    got(with_options.warning("r21_ct", "accepted because of force"))
    assert with_options.returncode == 0, with_options.stdout


@pytest.mark.bad_input(25)
def test_scaled_integers(plain, got):
    given, result = nib.load(plain.scans / "r25_scaled.nii.gz"), plain.result("r25_scaled")
    assert given.get_data_dtype() == np.int16 and given.dataobj.slope != 1
    before, after = given.get_fdata(), result.get_fdata()
    got(f"{result.get_data_dtype()}, mean {before.mean():.4f} in and {after.mean():.4f} out")
    assert result.get_data_dtype() == np.float32
    again = after.reshape(*before.shape, FACTOR).mean(-1)
    assert np.abs(again - before).mean() < 0.01 * np.ptp(before)


def test_the_run_tells_the_truth_and_nothing_else(plain):
    told = plain.stdout + plain.stderr
    rejected = [line for line in plain.stdout.splitlines() if line.startswith("rejected: ")]
    assert f"{8} done, 0 skipped (result already there), {len(rejected)} rejected, 0 failed" in plain.stdout
    assert len(rejected) + 8 == len(list(plain.scans.iterdir()))
    assert "Traceback" not in told
    assert "patient_doe" not in told and "patient_x" not in told  # folders' names may be patients'
    assert not list(plain.out.glob(".*"))


def left_half(image: nib.Nifti1Image) -> np.ndarray:
    """What lies well inside of the half that the masks leave out: the model works on a margin of 4 voxels."""
    return image.get_fdata()[: SIZE[0] // 2 - 6]


def assert_in_place(result: nib.Nifti1Image, scan: nib.Nifti1Image) -> None:
    """The centres of both lie at one place in mm."""
    centres = [nib.affines.apply_affine(i.affine, (np.array(i.shape) - 1) / 2) for i in (result, scan)]
    np.testing.assert_allclose(*centres, atol=THICK_MM)

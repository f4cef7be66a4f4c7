"""Rows of docs/bad_inputs.md through the real command line, on files made from a real scan.

Many rows share one run over a folder: each is a file in it, and the run must tell of each by itself.
"""

import nibabel as nib
import numpy as np
import pytest
from bad_files import FACTOR, SIZE, real_scan, write_all, write_for_options
from runs import Run, assert_in_place

pytestmark = pytest.mark.slow


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
    return Run.of(done, base / "in", base / "out", "sr")


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
        "brain_mask": base / "masks",
        "skull": "strip",
        "fusion": "axial",
        "report": False,
    }
    done = run_inference(bundle, base, input=base / "in", output_dir=base / "out", **asked)
    return Run.of(done, base / "in", base / "out", "sr")


@pytest.mark.parametrize(
    ("row", "name", "words"),
    [
        pytest.param(row, name, words, marks=pytest.mark.bad_input(row), id=name)
        for row, name, words in [
            (1, "r01_flat", "2D image|3D volume is needed"),
            (3, "r03_series", "holds 2 volumes|--volume N"),
            (4, "r04_nan", "NaN|--fill_nan"),
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
            (35, "r35_offset", "damaged NIfTI header|byte 0, not at 352"),
            (35, "r35_no_volume", "damaged NIfTI header|an axis of 0 voxels"),
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


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.bad_input(int(name[1:3])))
        for name in ("r11_oblique", "r17_flipped", "r17_permuted", "r19_first_axis")
    ],
)
def test_same_anatomy_and_axes_however_it_is_stored(plain, got, name):
    given, result = nib.load(plain.scans / f"{name}.nii.gz"), plain.result(name)
    assert nib.aff2axcodes(result.affine) == nib.aff2axcodes(given.affine)
    directions = [each.affine[:3, :3] / nib.affines.voxel_sizes(each.affine) for each in (given, result)]
    np.testing.assert_allclose(*directions, atol=1e-5)
    np.testing.assert_allclose(nib.affines.voxel_sizes(result.affine), 1, atol=1e-4)
    assert_in_place(result, given)
    for code in ("sform_code", "qform_code"):
        assert result.header[code] == given.header[code]
    axis, values = int(np.argmax(given.header.get_zooms())), given.get_fdata()
    slices = np.moveaxis(result.get_fdata(), axis, -1)
    again = np.moveaxis(slices.reshape(*slices.shape[:2], -1, FACTOR).mean(-1), -1, axis)
    assert np.abs(again - values).mean() < 0.01 * np.ptp(values)
    axes = "".join(nib.aff2axcodes(result.affine))
    got(f"axes {axes} and place kept, {given.shape} to {result.shape}; sliced thick again it is the input")


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


@pytest.mark.bad_input(20)
def test_nothing_to_do(plain, got):
    (line,) = [line for line in plain.stdout.splitlines() if "r20_fine.nii.gz: nothing to do" in line]
    got(line[line.index("r20") :])
    assert "already reaches the target of 1 x 1 x 1 mm" in line
    assert "1 with nothing to do (already at the target spacing)" in plain.stdout
    assert not list(plain.out.glob("r20*"))


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


@pytest.mark.bad_input(34)
def test_below_zero(plain, got):
    got(plain.warning("r34_scores", "below zero"))
    before = nib.load(plain.scans / "r34_scores.nii.gz").get_fdata()
    after = plain.result("r34_scores").get_fdata()
    assert (before < 0).mean() > 0.1
    again = after.reshape(*before.shape, FACTOR).mean(-1)
    assert np.abs(again - before).mean() < 0.01 * np.ptp(before)


@pytest.mark.bad_input(36)
def test_a_damaged_part_that_is_not_used(plain, scan, got):
    got(plain.warning("r36_qform", "qform is damaged"))
    assert_in_place(plain.result("r36_qform"), scan)


@pytest.mark.bad_input(37)
def test_an_earlier_result_of_other_settings(bundle, scan, run_inference, tmp_path, got):
    scan.to_filename(tmp_path / "a.nii.gz")
    options = {"input": "a.nii.gz", "output_dir": "out", "fusion": "axial", "report": False}
    result = tmp_path / "out" / "a_sr.nii.gz"
    assert run_inference(bundle, tmp_path, **options).returncode == 0
    whole = result.read_bytes()
    other = run_inference(bundle, tmp_path, **options, num_steps=2)
    (line,) = [line for line in other.stderr.splitlines() if "num_steps 1, now 2" in line]
    got(line)
    assert other.returncode == 1 and result.read_bytes() == whole
    result.write_bytes(whole[:2000])
    again = run_inference(bundle, tmp_path, **options)
    assert again.returncode == 0 and result.read_bytes() == whole and "1 done, 0 skipped" in again.stdout


def test_the_run_tells_the_truth_and_nothing_else(plain):
    plain.tells_the_truth(done=14, rejected=15)
    assert len(list(plain.scans.iterdir())) == 14 + 15 + 1
    told = plain.stdout + plain.stderr
    assert "patient_doe" not in told and "patient_x" not in told  # folders' names may be patients'


def left_half(image: nib.Nifti1Image) -> np.ndarray:
    """What lies well inside of the half that the masks leave out: the model works on a margin of 4 voxels."""
    return image.get_fdata()[: SIZE[0] // 2 - 6]

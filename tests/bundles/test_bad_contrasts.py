"""Rows of docs/bad_inputs.md on cases of several contrasts, through the translation bundle's command line.

Files are made from real scans of one head. Two runs serve all tests: one over a folder of case folders with
the default options, one over a data list with what users may ask for.
"""

import re

import itk
import mr_series
import numpy as np
import pydicom
import pytest
from bad_files import FACTOR, SIZE
from contrast_files import ENHANCED, FLAIR, T1W, T2W, real_head, write_cases, write_list
from runs import Run, assert_in_place

from monai_diffens.contrasts import CONTRASTS

pytestmark = pytest.mark.slow

SUFFIX = "desc-synthetic_FLAIR"


@pytest.fixture(scope="module")
def head(data_dir_or_none):
    return real_head(data_dir_or_none)


@pytest.fixture(scope="module")
def plain(translation, head, run_inference, tmp_path_factory) -> Run:
    """One run over case folders with the default options."""
    base = tmp_path_factory.mktemp("patient_doe")
    write_cases(base / "in", head)
    done = run_inference(translation, base, input=base / "in", output_dir=base / "out", report=False)
    return Run.of(done, base / "in", base / "out", SUFFIX)


@pytest.fixture(scope="module")
def with_options(translation, head, run_inference, tmp_path_factory) -> Run:
    """One run over a data list with what users may ask for."""
    base = tmp_path_factory.mktemp("options")
    listed = write_list(base / "in", base / "masks", head)
    asked = {
        "fill_nan": True,
        "volume": 1,
        "brain_mask": base / "masks",
        "num_samples": 2,
        "save_weights": True,
    }
    done = run_inference(translation, base, input=listed, output_dir=base / "out", **asked)
    return Run.of(done, base / "in", base / "out", SUFFIX)


@pytest.mark.bad_input(22)
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("swapped", f"{T1W} looks like {T2W}: bright over dark tail"),
        ("agent", f"{T1W} has brighter voxels than {ENHANCED}"),
    ],
)
def test_swapped_names(plain, got, name, told):
    line = plain.warning(name, "are their names swapped?")
    got(line)
    assert line.startswith(told)
    assert plain.result(name).shape == SIZE
    assert not any("swapped" in line for line in plain.facts("good")["Warnings"])


@pytest.mark.parametrize(
    ("name", "told", "words"),
    [
        pytest.param(name, told, words, marks=pytest.mark.bad_input(row), id=f"{row}-{name}")
        for row, name, told, words in [
            (23, "none", "", f"no contrast that can be used|expected one of {', '.join(CONTRASTS)}"),
            (24, "apart", "", f"{T1W} and {T2W} share 25 %|not registered to each other"),
            (4, "nan", f"nan_{T2W}", "voxels are NaN|--fill_nan"),
            (7, "cut", f"cut_{T1W}", "truncated or corrupt"),
            (29, "linked", f"linked_{T2W}", "leads out of the input folder"),
        ]
    ],
)
def test_rejected_in_one_line_without_a_result(plain, got, name, told, words):
    reason = plain.reason(name, told)
    got(reason)
    assert all(word in reason for word in words.split("|")), reason


@pytest.mark.bad_input(24)
def test_another_grid_is_resampled_to_the_first(plain, head, got):
    got(plain.warning("grids", "another grid"))
    assert_in_place(plain.result("grids"), head[T1W])


def test_all_contrasts_of_a_case(plain, head):
    result, facts = plain.result("good"), plain.facts("good")
    assert result.shape == SIZE and facts["SynthesizedFrom"] == [f"good_{name}.nii.gz" for name in CONTRASTS]
    assert_in_place(result, head[T1W])
    again = result.get_fdata().reshape(*SIZE[:2], -1, FACTOR).mean(-1)
    scan = head[FLAIR].get_fdata()
    inside = again > np.median(scan[scan > 0]) / 2
    assert np.abs(again - scan)[inside].mean() < 0.05 * np.percentile(scan, 99.5)
    assert facts["Consistency"]["MeanAbsoluteDifference"] < 0.05
    assert any("brain spans" in line for line in facts["Warnings"])  # a crop, told once for all contrasts
    assert sum("brain spans" in line for line in facts["Warnings"]) == 1


def test_the_run_tells_the_truth_and_nothing_else(plain, with_options):
    plain.tells_the_truth(done=4, rejected=5)
    with_options.tells_the_truth(done=2, rejected=6)
    assert not [word for word in ("patient_doe", "patient_x") if word in plain.stdout + plain.stderr]
    told = with_options.stdout + with_options.stderr
    pages = [path.read_text() for path in with_options.out.glob("*.[hj]*")]
    assert pages and not [text for text in (told, *pages) if "Müller" in text or "PID-4711" in text]


@pytest.mark.parametrize(
    ("row", "name", "told", "words"),
    [
        pytest.param(row, name, told, words, marks=pytest.mark.bad_input(row), id=f"{row}-{told or name}")
        for row, name, told, words in [
            (23, "unknown", "", "unknown contrast 'T1'|did you mean T1w?"),
            (23, "nothing", "", "no contrast that can be used|found nothing"),
            (29, "escaped", "case name '../escaped'", "not a plain file name"),
            (29, "escaped", "case name '/escaped'", "not a plain file name"),
            (9, "unmasked", "", "no brain mask of this name"),
        ]
    ],
)
def test_a_bad_entry_of_a_data_list(with_options, got, row, name, told, words):
    reason = with_options.reason(name, told)
    got(reason)
    assert all(word in reason for word in words.split("|")), reason
    assert not list(with_options.out.parent.glob("*escaped*"))


@pytest.mark.bad_input(27)
def test_a_series_with_a_gap(with_options, got):
    lines = [line for line in with_options.stdout.splitlines() if "slices are missing" in line]
    got(lines[-1].removeprefix("rejected: "))
    assert lines[-1].startswith("rejected: 4-t1_tse_tra-") and not list(with_options.out.glob("gap_*"))


@pytest.mark.bad_input(3, 4)
def test_what_users_ask_for(with_options, got):
    """A volume of the 4D file, NaN filled, the mask of the case applied to all of its contrasts."""
    got(with_options.warning("all", "volume 1 of 2"))
    assert f"{T2W}: " in with_options.warning("all", "taken as 0 because of fill_nan")
    result = with_options.result("all").get_fdata()
    assert np.isfinite(result).all() and result[SIZE[0] // 2 :].max() > 0
    assert not result[: SIZE[0] // 2].any()


@pytest.mark.bad_input(10)
def test_a_mask_on_another_grid(with_options, got):
    line = with_options.warning("all", "another grid: resampled to the scan's")
    got(line)
    assert line.startswith(f"{FLAIR}: ")  # the others lie on the mask's grid


def test_maps_and_report(with_options):
    page = (with_options.out / f"all_{SUFFIX}.html").read_text()
    for told in (
        *(f"<b>{name}</b>" for name in (T1W, T2W, FLAIR, "result", "spread")),
        "the median of the brain",
    ):
        assert told in page, told
    assert f"<b>{ENHANCED}</b>" not in page  # the case lacks it
    assert {plane for plane in ("axial", "coronal", "sagittal") if f"<b>{plane}</b>" in page} == {
        "axial",
        "coronal",
        "sagittal",
    }
    index = (with_options.out / "index.html").read_text()
    assert len(set(re.findall(r'href="([^"#:]+\.html)"', index))) == 2
    assert "relative to the median of the brain" in index
    assert with_options.facts("all")["Spread"]["Mean"] > 0


def test_a_derived_series_comes_out_where_the_first_contrast_is_one(with_options, head):
    name = f"dicom_{SUFFIX}"
    files = sorted((with_options.out / name).iterdir())
    first = pydicom.dcmread(files[0])
    assert (
        "diffensembler_translate" in first.SeriesDescription and first.PatientName == mr_series.PATIENT_NAME
    )
    assert "EchoTime" not in first or first.EchoTime is None  # another contrast than the source's
    result = with_options.result("dicom")
    assert_in_place(result, head[T1W])
    image = itk.imread([str(file) for file in files])
    stored = np.asarray(itk.array_from_image(image)).T
    np.testing.assert_allclose(
        np.sort(stored.ravel())[::999], np.sort(result.get_fdata().ravel())[::999], atol=0.51
    )
    read = pydicom.dcmread(next((with_options.scans / mr_series.PATIENT_NAME).iterdir()))
    assert mr_series.result_name([read]) in with_options.facts("dicom")["SynthesizedFrom"]
    assert not (with_options.out / f"all_{SUFFIX}").exists()

"""A study of ten series: its table, what is worked on, names of results, and a case for translation."""

import json
import shutil

import mr_series
import nibabel as nib
import numpy as np
import pytest
from pydicom.uid import generate_uid
from thick_scans import cases_with, stops
from typer.testing import CliRunner

from monai_diffens.cli import app
from monai_diffens.data.cases import CaseFolder
from monai_diffens.data.contrast_cases import ContrastCases
from monai_diffens.data.dicom.contrast import recognise
from monai_diffens.data.dicom.series import DicomSeries, find_series
from monai_diffens.data.dicom.study import choose, study_table, table_text
from monai_diffens.messages import InputRejected

IDENTIFIERS = ("ller", "nne", "4711", "ACC", "1961", "House")
THICK = np.diag([1, 1, 5, 1.0])
FLAIR = {"EchoTime": 120, "RepetitionTime": 9000, "InversionTime": 2500, "ScanningSequence": ["SE", "IR"]}
T2W = {"EchoTime": 95, "RepetitionTime": 4200}
T1W = {"EchoTime": 9, "RepetitionTime": 550}
MPRAGE = {
    "EchoTime": 2.9,
    "RepetitionTime": 2000,
    "InversionTime": 900,
    "FlipAngle": 9,
    "ScanningSequence": ["GR", "IR"],
    "MRAcquisitionType": "3D",
}
EPI = {"EchoTime": 90, "RepetitionTime": 5000, "ScanningSequence": "EP", "SequenceName": "*ep_b1000"}
# number: description, contrast, whether it is structural, attributes
SERIES = {
    1: ("localizer", "T1w", "localizer", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], **T1W}),
    2: ("t2_tse_tra Mueller", "T2w", "", T2W),
    3: ("t1_se_tra", "T1w", "", T1W),
    4: ("t2_tirm_tra_dark-fluid PID-4711", "FLAIR", "", FLAIR),
    5: ("ep2d_diff_b1000", "", "diffusion", {**EPI, "DiffusionBValue": 1000}),
    6: ("ep2d_diff_ADC", "", "ADC map", {**EPI, "ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}),
    7: ("t1_mprage_sag", "T1w", "", MPRAGE),
    8: ("t1_se_tra_KM", "ce-gadolinium_T1w", "", {**T1W, "ContrastBolusAgent": "Gadovist"}),
    9: ("MIP_TOF", "T1w", "MIP", {**MPRAGE, "ImageType": ["DERIVED", "SECONDARY", "MIP"]}),
    10: ("ep2d_diff_FA", "", "FA map", {**EPI, "ImageType": ["DERIVED", "PRIMARY", "FA"]}),
}


def head(step: float):
    """A head of the same extent in slices of another thickness."""
    return mr_series.thick_head(np.diag([1, 1, step, 1]), (24, 28, round(40 / step)))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Ten series of one examination, a folder each; to be read only."""
    folder = tmp_path_factory.mktemp("study")
    common = mr_series.study()
    for number, (description, _, _, attributes) in SERIES.items():
        slices = mr_series.series(
            head(1.25 if number == 7 else 5),
            **{**common, **attributes, "SeriesNumber": number, "SeriesDescription": description},
        )
        mr_series.write(slices, folder / f"{mr_series.PATIENT_NAME}{number}")
    return folder


@pytest.fixture
def own_study(study, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(study, tmp_path / "in")


def test_the_table(study):
    rows = study_table(study)
    assert [row.number for row in rows] == list(SERIES)
    for row in rows:
        _, contrast, kind, _ = SERIES[row.number]
        assert (
            (row.verdict == "structural") is not bool(kind) and row.plane == "axial" and row.slices in (8, 32)
        )
        assert row.spacing == pytest.approx((1, 1, 1.25 if row.number == 7 else 5))
        assert row.thickness == row.spacing[2] and row.name.startswith(f"{row.number}-{row.description}-")
        if kind:
            assert row.verdict == f"left alone: {kind}"
        else:
            assert (row.contrast, row.verdict) == (contrast, "structural")
    assert len({row.study for row in rows}) == 1
    assert rows[1].description == "t2_tse_tra" and rows[3].description == "t2_tirm_tra_dark_fluid"
    text = table_text(rows)
    assert len(text.splitlines()) == 12 and not [name for name in IDENTIFIERS if name in text]


def test_no_table_of_a_folder_that_is_not_there(study):
    with pytest.raises(InputRejected):
        study_table(study / "nowhere")


def test_structural_series_alone_are_worked_on_and_the_rest_is_no_failure(study, tmp_path, capsys):
    cases = CaseFolder(study, tmp_path / "out", target_spacing=1.0)
    structural = [number for number, (_, _, kind, _) in SERIES.items() if not kind]
    assert sorted(int(item["case"].split("-")[0]) for item in cases.items) == structural
    assert cases.rejected == [] and cases.problems == []
    for number, (_, _, kind, _) in SERIES.items():
        told = [line for line in cases.left_out if line.startswith(f"{number}-")]
        assert len(told) == bool(kind) and (not kind or kind in told[0])
    names = [item["case"] for item in cases.items] + cases.left_out
    assert not [name for name in names for identifier in IDENTIFIERS if identifier in name]


def test_a_derived_series_alone_is_refused_and_taken_when_named(study, tmp_path, capsys):
    folder = study / f"{mr_series.PATIENT_NAME}6"
    assert "ADC map" in stops(CaseFolder(folder, tmp_path / "out"), capsys)
    (item,) = cases_with(CaseFolder, folder, tmp_path / "out", series=6).items
    assert "ADC map" in item["warnings"][0]


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [(7, [7]), ("7", [7]), ("3, 7", [3, 7]), ([6], [6]), ("t1_se_tra", [3]), (["t1_mprage_sag", 4], [7, 4])],
)
def test_series_are_chosen_by_number_or_name(study, wanted, numbers):
    series = find_series(study).series
    assert [one.number for one in choose(series, wanted)] == numbers
    assert choose(series, series[2].name) == [series[2]]


@pytest.mark.parametrize("wanted", [99, "t9", "", [], "3,99"])
def test_a_series_that_is_not_there(study, tmp_path, wanted):
    with pytest.raises(InputRejected):
        choose(find_series(study).series, wanted)


def test_two_patients_series_of_one_name_have_results_of_two_names(own_study, tmp_path):
    other = mr_series.series(head(5), SeriesNumber=3, SeriesDescription="t1_se_tra", **T1W)
    mr_series.write(other, own_study / "other")
    cases = cases_with(CaseFolder, own_study, tmp_path / "out", series=3).items
    assert len({item["case"] for item in cases}) == 2
    assert len({row.study for row in study_table(own_study)}) == 2


def test_a_case_for_translation_of_the_finest_of_each_contrast(study, tmp_path):
    cases = ContrastCases(study, tmp_path / "out")
    (item,) = cases.items
    assert set(item) >= {"T1w", "ce-gadolinium_T1w", "T2w", "FLAIR"}
    assert [name.split("-")[0] for name in item["sources"]] == ["7", "8", "2", "4"]
    (line,) = [line for line in item["warnings"] if line.startswith("T1w: 7-t1_mprage_sag-")]
    assert "1 x 1 x 1.25" in line and "7, 3" in line
    assert len(cases.left_out) == 5 and cases.rejected == []
    assert not [name for name in IDENTIFIERS if name in item["case"]] and item["case"].startswith(
        "MRT_Schadel-"
    )


def test_the_case_is_made_of_the_series_that_are_named(study, tmp_path):
    (item,) = cases_with(ContrastCases, study, tmp_path / "out", series="2,3").items
    assert set(item) >= {"T1w", "T2w"} and "FLAIR" not in item
    assert [name.split("-")[0] for name in item["sources"]] == ["3", "2"]


def test_a_broken_series_is_told_and_the_case_goes_on(own_study, tmp_path):
    for file in sorted((own_study / f"{mr_series.PATIENT_NAME}2").iterdir())[3:4]:
        file.unlink()
    (item,) = ContrastCases(own_study, tmp_path / "out").items
    assert "T2w" not in item
    assert [line for line in item["warnings"] if line.startswith("2-t2_tse_tra-") and "missing" in line]
    cases = CaseFolder(own_study, tmp_path / "out")  # asked to restore all structural ones, it is a failure
    assert [str(entry.path)[:2] for entry in cases.rejected] == ["2-"]


def recognised(**attributes):
    slices = mr_series.series(mr_series.thick_head(), **attributes)
    header = {element.keyword: element.value for element in slices[0]}
    return recognise(DicomSeries(generate_uid(), (), (header,)))


@pytest.mark.parametrize(
    ("attributes", "contrast"),
    [
        (MPRAGE, "T1w"),
        ({"EchoTime": 3.1, "RepetitionTime": 7.6, "ScanningSequence": "GR", "FlipAngle": 12}, "T1w"),
        (
            {"EchoTime": 10, "RepetitionTime": 2000, "InversionTime": 860, "ScanningSequence": ["SE", "IR"]},
            "T1w",
        ),
        ({"EchoTime": 390, "RepetitionTime": 5000, "InversionTime": 1800}, "FLAIR"),
        (FLAIR, "FLAIR"),
        ({"EchoTime": 408, "RepetitionTime": 3200}, "T2w"),
        ({"EchoTime": 14, "RepetitionTime": 2500}, "PDw"),
        ({"EchoTime": 22, "RepetitionTime": 700, "ScanningSequence": "GR"}, "T2starw"),
        ({"EchoTime": None, "RepetitionTime": None, "SeriesDescription": "AX FLAIR FS"}, "FLAIR"),
        ({"EchoTime": None, "RepetitionTime": None, "SeriesDescription": "3D T2 SPACE"}, "T2w"),
        ({"EchoTime": None, "SeriesDescription": "Sag T1 BRAVO"}, "T1w"),
        ({"EchoTime": None, "SeriesDescription": "T1 +C", "ContrastBolusAgent": ""}, "ce-gadolinium_T1w"),
        ({**T1W, "SeriesDescription": "t1 tra nativ", "ContrastBolusAgent": "Dotarem"}, "T1w"),
        ({**T1W, "SeriesDescription": "t1 tra", "ContrastBolusAgent": "Dotarem"}, "ce-gadolinium_T1w"),
        ({**T1W, "SeriesDescription": "t1 tra", "ContrastBolusAgent": "NONE"}, "T1w"),
        ({"EchoTime": None, "RepetitionTime": None, "SeriesDescription": "4711"}, ""),
    ],
)
def test_contrasts_of_common_protocols(attributes, contrast):
    names = {"SeriesDescription": "x", "ProtocolName": "", **attributes}
    found = recognised(**names)
    assert (found.contrast, found.left_alone) == (contrast, "")


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({"SeriesDescription": "Ax DWI b1000"}, "diffusion"),
        ({"ImageType": ["DERIVED", "PRIMARY", "TRACEW"]}, "trace image"),
        ({"SeriesDescription": "dADC (10^-6 mm2/s)"}, "ADC map"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "phase image"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"]}, "phase image"),
        ({"ImageType": ["DERIVED", "PRIMARY", "MPR"]}, "reformatted"),
        ({"SeriesDescription": "3-plane loc"}, "localizer"),
        ({"SeriesDescription": "SWI_mIP"}, "susceptibility"),
        ({"SeriesDescription": "TOF_3D"}, "angiography"),
        ({"SeriesDescription": "rCBV map"}, "perfusion map"),
        ({"SeriesDescription": "t2 stir cor", **T2W, "InversionTime": 160}, "another contrast"),
        ({"Modality": "CT"}, "modality CT"),
        ({"ManufacturerModelName": "Diff-Ensembler"}, "a result of this package"),
    ],
)
def test_what_is_left_alone(attributes, kind):
    assert recognised(**attributes).left_alone == kind


def test_name_and_sequence_that_tell_two_contrasts_are_not_taken_for_translation(tmp_path):
    slices = mr_series.series(head(5), SeriesDescription="t1_tra", **T2W)
    mr_series.write(slices, tmp_path / "in")
    assert len(study_table(tmp_path / "in")[0].warnings) == 1
    with pytest.raises(InputRejected):
        _ = ContrastCases(tmp_path / "in", tmp_path / "out").items


def test_oblique_planes(tmp_path):
    affine = np.eye(4)
    affine[:3, :3] = nib.eulerangles.euler2mat(x=0.5) @ np.diag([1, 1, 5])
    mr_series.write(mr_series.series(mr_series.thick_head(affine)), tmp_path / "a")
    sagittal = np.array([[0, 0, 5, -20], [-1.1, 0, 0, 9], [0, -0.9, 0, 8], [0, 0, 0, 1.0]])
    mr_series.write(mr_series.series(mr_series.thick_head(sagittal)), tmp_path / "b")
    assert sorted(row.plane for row in study_table(tmp_path)) == ["axial oblique", "sagittal"]


def test_diffens_check_prints_the_table_and_what_would_be_done(study):
    done = CliRunner().invoke(app, ["check", str(study)], catch_exceptions=False)
    assert done.exit_code == 0
    text = table_text(study_table(study))
    assert done.stdout.startswith(text) and "7-t1_mprage_sag-" in done.stdout[len(text) :]
    done = CliRunner().invoke(app, ["check", str(study), "--json_lines"], catch_exceptions=False)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["series"]["number"] for row in rows if "series" in row] == list(SERIES)

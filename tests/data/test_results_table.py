"""The table of a run's results, and the names of BIDS for those of a BIDS dataset."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from monai_diffens.cli import app
from monai_diffens.data.cases import CaseFolder
from monai_diffens.data.results import COLUMNS, bids_path, write_derivatives, write_table
from monai_diffens.files import package_version


@pytest.mark.parametrize(
    ("case", "suffix", "map_name", "path"),
    [
        ("sub-1_T1w", "sr", None, "sub-1/anat/sub-1_rec-sr_T1w.nii.gz"),
        ("sub-1_ses-a_T1w", "sr", "std", "sub-1/ses-a/anat/sub-1_ses-a_rec-sr_desc-std_T1w.nii.gz"),
        ("sub-1_run-2_acq-x_T2w", "sr", None, "sub-1/anat/sub-1_acq-x_rec-sr_run-2_T2w.nii.gz"),
        ("sub-1_rec-norm_T1w", "sr", None, "sub-1/anat/sub-1_rec-normsr_T1w.nii.gz"),
        (
            "sub-1_ce-gd_T1w",
            "sr",
            "weight-axial-T1w",
            "sub-1/anat/sub-1_ce-gd_rec-sr_desc-weightaxialT1w_T1w.nii.gz",
        ),
        ("sub-1", "desc-synthetic_FLAIR", None, "sub-1/anat/sub-1_desc-synthetic_FLAIR.nii.gz"),
        ("sub-1", "desc-synthetic_FLAIR", "std", "sub-1/anat/sub-1_desc-syntheticstd_FLAIR.nii.gz"),
        ("brain_T1w", "sr", None, None),
        ("scan", "sr", None, None),
        ("sub-1_what-is_T1w", "sr", None, None),
        ("sub-1_acq-a+b_T1w", "sr", None, None),
        ("sub-1_odd_T1w", "sr", None, None),
        ("sub-1_acq-a_acq-b_T1w", "sr", None, None),
    ],
)
def test_names_of_bids(case, suffix, map_name, path):
    assert bids_path(case, suffix, map_name) == (None if path is None else Path(path))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Two subjects, one with a session, and one whose scan is empty."""
    root = tmp_path_factory.mktemp("bids") / "raw"
    grid = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in (20, 22, 5)), indexing="ij")
    ball = sum(axis**2 for axis in grid)
    image = nib.Nifti1Image(((ball < 1) * 300).astype(np.float32), np.diag([1, 1, 5, 1]))
    for folder, name in (("sub-1", "sub-1_T1w"), ("sub-2/ses-a", "sub-2_ses-a_T1w")):
        (root / folder / "anat").mkdir(parents=True)
        nib.save(image, root / folder / "anat" / f"{name}.nii.gz")
    (root / "sub-3" / "anat").mkdir(parents=True)
    (root / "sub-3" / "anat" / "sub-3_T1w.nii.gz").write_bytes(b"")
    description = {"Name": "raw", "BIDSVersion": "1.9.0", "DatasetDOI": "doi:10.0/x"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    return root


@pytest.fixture(scope="module")
def out(dataset) -> Path:
    folder = dataset.parent / "out"
    done = CliRunner().invoke(app, ["sr", str(dataset), "-o", str(folder), "--num_samples", "2", "--quiet"])
    assert done.exit_code == 1, done.output
    return folder


def test_the_table_has_a_row_for_every_input(out):
    rows = rows_of(out / "results.csv")
    assert tuple(rows[0]) == COLUMNS
    assert [(row["case"], row["status"]) for row in rows] == [
        ("sub-1_T1w", "done"),
        ("sub-2_ses-a_T1w", "done"),
        ("sub-3_T1w.nii.gz", "rejected"),
    ]
    facts = json.loads((out / "sub-1_T1w_sr.json").read_text())
    assert float(rows[0]["consistency_mean"]) == facts["Consistency"]["MeanAbsoluteDifference"]
    assert (rows[0]["num_steps"], rows[0]["version"]) == ("1", package_version())
    assert rows[2]["reason"] and not rows[2]["result"]


def test_the_folder_is_a_derivative(out):
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative" and description["SourceDatasets"] == [
        {"DOI": "doi:10.0/x"}
    ]
    assert description["GeneratedBy"] == [{"Name": "Diff-Ensembler", "Version": package_version()}]
    names = sorted(str(path.relative_to(out)) for path in out.rglob("sub-*/**/*") if path.is_file())
    ours = [("sub-1", "sub-1"), ("sub-2/ses-a", "sub-2_ses-a")]
    ends = ("T1w.json", "T1w.nii.gz", "desc-std_T1w.nii.gz")
    assert names == [f"{folder}/anat/{stem}_rec-sr_{end}" for folder, stem in ours for end in ends]
    flat, linked = (nib.load(out / name) for name in ("sub-1_T1w_sr.nii.gz", names[1]))
    np.testing.assert_array_equal(flat.get_fdata(), linked.get_fdata())
    assert not list(out.rglob(".part-*"))


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def cases_of(dataset: Path, out: Path) -> CaseFolder:
    return CaseFolder(dataset, out, target_spacing=1.0)


def bring_a_result(out: Path, folder: Path) -> None:
    for name in ("sub-1_T1w_sr.json", "sub-1_T1w_sr.nii.gz"):
        (folder / name).write_bytes((out / name).read_bytes())


def test_a_run_without_a_result_leaves_no_table(dataset, tmp_path):
    cases = cases_of(dataset, tmp_path)
    cases.fail("case", "why")
    assert write_table(cases) is None and list(tmp_path.iterdir()) == []


def test_a_foreign_dataset_is_left_alone(dataset, out, tmp_path, caplog):
    bring_a_result(out, tmp_path)
    foreign = json.dumps({"Name": "mine", "GeneratedBy": [{"Name": "fMRIPrep"}]})
    (tmp_path / "dataset_description.json").write_text(foreign)
    assert write_derivatives(cases_of(dataset, tmp_path)) == [] and len(caplog.records) == 1
    assert (tmp_path / "dataset_description.json").read_text() == foreign


def test_records_of_others_and_no_room_do_no_harm(dataset, out, tmp_path, monkeypatch, caplog):
    cases = cases_of(dataset, tmp_path)
    (tmp_path / "x_sr.nii.gz").write_bytes(b"")
    for number, content in enumerate(["[", "[]", "{}", '{"GeneratedBy": [{"Name": "other"}]}', "[" * 50000]):
        (tmp_path / f"x{number}_sr.nii.gz").write_bytes(b"")
        (tmp_path / f"x{number}_sr.json").write_text(content)
    assert write_derivatives(cases) == []
    bring_a_result(out, tmp_path)
    table = write_table(cases)
    assert [row["status"] for row in rows_of(table)] == ["done", "rejected"]
    table.unlink()
    table.mkdir()
    assert write_table(cases) is None and caplog.records[-1].levelname == "WARNING"


def test_a_name_that_a_spreadsheet_would_run(dataset, out, tmp_path):
    bring_a_result(out, tmp_path)
    cases = cases_of(dataset, tmp_path)
    cases.fail("=cmd", "=HYPERLINK(1)")
    row = next(row for row in rows_of(write_table(cases)) if row["status"] == "failed")
    assert row["case"] == "'=cmd" and row["reason"] == "'=HYPERLINK(1)"


def test_two_results_of_one_name_of_bids(dataset, out, tmp_path, caplog):
    for case in ("sub-1_acq-x_run-2_T1w", "sub-1_run-2_acq-x_T1w"):
        for end in ("json", "nii.gz"):
            (tmp_path / f"{case}_sr.{end}").write_bytes((out / f"sub-1_T1w_sr.{end}").read_bytes())
    written = write_derivatives(cases_of(dataset, tmp_path))
    assert len(written) == len(set(written)) and "sub-1_run-2_acq-x_T1w_sr" in caplog.text


def test_a_folder_that_is_no_dataset_has_no_names_of_bids(dataset, tmp_path):
    scan = dataset / "sub-1" / "anat" / "sub-1_T1w.nii.gz"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / scan.name).write_bytes(scan.read_bytes())
    assert write_derivatives(cases_of(tmp_path / "in", tmp_path)) == []
    assert write_derivatives(cases_of(dataset, dataset)) == []

"""A case that fails while it is read, restored or written is reported, and the next one begins."""

import errno
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.handlers import StatsHandler
from monai.inferers import SimpleInferer
from monai.transforms import Compose, LoadImaged

from monai_diffens.data.cases import CaseFolder
from monai_diffens.data.writer import SaveVolumed
from monai_diffens.engines.case_evaluator import CaseEvaluator, failure_line
from monai_diffens.messages import InputRejected
from tests.data.thick_scans import cases_with

NAMES = ("a", "b", "c", "d")


class FailsFor(SimpleInferer):
    """Raise ``error`` for the cases whose brightest voxel is ``value``."""

    def __init__(self, value: float, error: Exception) -> None:
        super().__init__()
        self.value, self.error = value, error

    def __call__(self, inputs, network, *args, **kwargs):
        if float(inputs.max()) == self.value:
            raise self.error
        return super().__call__(inputs, network, *args, **kwargs)


@pytest.fixture
def cases(tmp_path) -> CaseFolder:
    """Four scans; the brightest voxels are 100, 200, 300, 400."""
    (tmp_path / "in").mkdir()
    for number, name in enumerate(NAMES, 1):
        voxels = np.random.default_rng(number).integers(1, 90, (8, 9, 10)).astype(np.int16)
        voxels[4, 4, 4] = 100 * number
        image = nib.Nifti1Image(voxels, np.diag([1, 1, 4, 1.0]))
        image.header.set_xyzt_units("mm")
        image.to_filename(tmp_path / "in" / f"{name}.nii.gz")
    folder = CaseFolder(tmp_path / "in", tmp_path / "out")
    assert [item["case"] for item in folder.items] == list(NAMES)
    return folder


def evaluator(
    cases: CaseFolder, inferer=None, postprocessing=None, num_workers=0, batch_size=1
) -> CaseEvaluator:
    load = LoadImaged("image", reader="NibabelReader", ensure_channel_first=True)
    loader = DataLoader(Dataset(cases.items, load), batch_size=batch_size, num_workers=num_workers)
    save = postprocessing or SaveVolumed("pred", output_dir=cases.output_dir)
    network = torch.nn.Identity()
    return CaseEvaluator(torch.device("cpu"), loader, network, cases, inferer, postprocessing=save)


def results(cases: CaseFolder) -> list[str]:
    return sorted(path.name for path in Path(cases.output_dir).glob("*.nii.gz"))


def finishes_with(cases: CaseFolder, capsys) -> list[str]:
    assert cases.finish() == 1
    return capsys.readouterr().out.splitlines()


def test_all_is_well(cases, capsys):
    evaluator(cases).run()
    assert cases.finish() == 0
    assert capsys.readouterr().out.startswith("4 done, 0 skipped")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_case_that_cannot_be_read_any_more(cases, capsys, caplog, num_workers):
    (Path(cases.input) / "b.nii.gz").unlink()
    evaluator(cases, num_workers=num_workers).run()
    assert results(cases) == ["a_sr.nii.gz", "c_sr.nii.gz", "d_sr.nii.gz"]
    lines = finishes_with(cases, capsys)
    assert lines[0] == "3 done, 0 skipped (result already there), 0 rejected, 1 failed"
    assert len(lines) == 2 and lines[1].startswith("failed: b: ")
    told = [r.message for r in caplog.records if r.name == "monai_diffens" and r.levelname == "ERROR"]
    assert told == [lines[1]]
    assert str(cases.input) not in caplog.text.replace("details", "").split("Traceback")[0]


def test_a_case_that_cannot_be_restored(cases, capsys):
    error = InputRejected("c.nii.gz: too much of something; give less")
    evaluator(cases, FailsFor(300, error)).run()
    assert results(cases) == ["a_sr.nii.gz", "b_sr.nii.gz", "d_sr.nii.gz"]
    assert finishes_with(cases, capsys)[1] == "failed: c.nii.gz: too much of something; give less"


def test_first_and_last_case_may_fail(cases, capsys):
    def save(data):
        if data["case"] in "ad":
            raise RuntimeError("patient DOE^JANE at /clinic/doe")
        return SaveVolumed("pred", output_dir=cases.output_dir)(data)

    evaluator(cases, postprocessing=Compose([save])).run()
    assert results(cases) == ["b_sr.nii.gz", "c_sr.nii.gz"]
    lines = finishes_with(cases, capsys)
    assert [line.split(":")[1].strip() for line in lines[1:]] == ["a", "d"]
    assert "RuntimeError at test_case_evaluator.py:" in lines[1] and "DOE" not in "".join(lines)


def test_a_result_that_cannot_be_written(cases, capsys):
    (Path(cases.output_dir) / "b_sr.nii.gz").mkdir(parents=True)
    (Path(cases.output_dir) / "b_sr.nii.gz" / "x").touch()
    evaluator(cases).run()
    assert [(Path(cases.output_dir) / f"{name}_sr.nii.gz").is_file() for name in NAMES] == [
        True,
        False,
        True,
        True,
    ]
    assert "reading the scan or writing its result failed (Is a directory)" in finishes_with(cases, capsys)[1]
    assert not list(Path(cases.output_dir).glob(".part-*"))


def test_a_full_disk_ends_the_run(cases, capsys):
    """The others would compute in vain."""
    evaluator(cases, FailsFor(200, OSError(errno.ENOSPC, "No space left on device"))).run()
    assert results(cases) == ["a_sr.nii.gz"]
    lines = finishes_with(cases, capsys)
    assert "(No space left on device)" in lines[1]
    assert lines[2:] == [f"failed: {name}: no result was written; run again to see why" for name in "cd"]


def test_a_failed_case_counts_although_an_older_result_is_there(cases, capsys):
    evaluator(cases).run()
    capsys.readouterr()
    again = cases_with(CaseFolder, cases.input, cases.output_dir, overwrite=True)
    evaluator(again, FailsFor(100, MemoryError())).run()
    lines = finishes_with(again, capsys)
    assert lines[0].startswith("3 done") and lines[1].startswith("failed: a: not enough memory; close")


def test_an_interruption_is_no_failure_of_a_case(cases, caplog):
    class Interrupted(FailsFor):
        def __call__(self, inputs, network, *args, **kwargs):
            raise SystemExit(130)

    engine = evaluator(cases, Interrupted(0, ValueError()))
    StatsHandler(iteration_log=False).attach(engine)
    with pytest.raises(SystemExit) as stop:
        engine.run()
    assert stop.value.code == 130 and cases.failures == {}
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            "not enough",
        ),
        (torch.OutOfMemoryError("CUDA out of memory"), "not enough memory"),
        (PermissionError(errno.EACCES, "Permission denied", "/clinic/doe.nii"), "failed (Permission denied)"),
        (KeyError("DOE^JANE"), "a: KeyError at an unknown place, an error of this program"),
    ],
)
def test_failure_line(error, line):
    told = failure_line("a", error)
    assert line in told and "DOE" not in told and "clinic" not in told and len(told.splitlines()) == 1


def test_details_are_logged_for_those_who_ask(cases, caplog):
    with caplog.at_level(logging.DEBUG, "monai_diffens"):
        evaluator(cases, FailsFor(100, KeyError("x"))).run()
    assert [r.exc_info[0] for r in caplog.records if r.levelname == "DEBUG" and r.exc_info] == [KeyError]


def test_cases_run_one_by_one(cases):
    with pytest.raises(ValueError, match="batch_size must be 1, got 2"):
        evaluator(cases, batch_size=2)

"""Faults 20, 23, 29 and their kinds: results are believed where proved, and what was checked is used."""

import csv
import gzip
import json
import os

import numpy as np
import pytest
from monai.data import MetaTensor
from monai.transforms import apply_transform
from nifti_files import head, save

from monai_diffens.data.cases import CaseFolder
from monai_diffens.data.contrast_cases import ContrastCases
from monai_diffens.data.load_scan import LoadScand
from monai_diffens.data.output_folder import Recipe, stamp
from monai_diffens.data.results import write_table
from monai_diffens.data.writer import SaveVolumed, save_volume
from monai_diffens.messages import InputRejected, say
from monai_diffens.transforms.brain_mask import BrainMaskd
from tests.data.thick_scans import cases_with

OPTIONS = {"num_steps": 1, "target_spacing": 1.0, "plane_weights": {"axial": 1}}


def finish(run) -> None:
    """Give every case a result as the bundles do."""
    for item in run.items:
        facts = {
            "Sampling": dict(run.results.recipe.parameters),
            "WeightsSHA256": run.results.recipe.weights_sha256(),
        }
        data = {**item, "pred": MetaTensor(head()[None].astype(np.float32), np.eye(4)), "facts": facts}
        SaveVolumed("pred", output_dir=run.output_dir, suffix=run.suffix)(data)
    assert run.finish() == 0


@pytest.fixture
def weights(tmp_path):
    (tmp_path / "model.pt.sha256").write_text("aa11  model.pt\n")
    return tmp_path / "model.pt"


@pytest.fixture
def again(tmp_path, weights):
    """Function (options) to a further run over a folder of two scans, whose results are there."""
    for name in "ab":
        save(tmp_path / "in" / f"{name}.nii.gz", head() + (name == "a"))

    def run(parameters=OPTIONS, **options) -> CaseFolder:
        return cases_with(
            CaseFolder, tmp_path / "in", tmp_path / "out", recipe=Recipe(parameters, weights), **options
        )

    finish(run())
    return run


def test_29_the_same_again_is_skipped(again):
    run = again()
    assert run.items == [] and len(run.skipped) == 2 and run.finish() == 0


@pytest.mark.parametrize(
    ("now", "what"),
    [
        ({"num_steps": 50}, "num_steps 1, now 50"),
        ({"target_spacing": [1, 1, 2]}, "target_spacing 1.0, now [1, 1, 2]"),
        ({"plane_weights": {"axial": 2}}, 'plane_weights {"axial": 1}, now {"axial": 2}'),
    ],
)
def test_29_other_options_are_told_and_the_result_is_kept(again, tmp_path, now, what):
    before = stamp(tmp_path / "out" / "a_sr.nii.gz")
    run = again(OPTIONS | now)
    assert run.items == [] and run.skipped == []
    reasons = [say("settings_differ", name=f"{n}.nii.gz", result=f"{n}_sr.nii.gz", what=what) for n in "ab"]
    assert [entry.reason for entry in run.rejected] == reasons
    assert run.finish() == 1
    assert stamp(tmp_path / "out" / "a_sr.nii.gz") == before
    assert len(again(OPTIONS | now, overwrite=True).items) == 2


def test_29_other_weights_another_input_or_mask_are_told(again, tmp_path, weights):
    save(tmp_path / "in" / "a.nii.gz", head() * 2)
    (entry,) = again().rejected
    assert "(the input)" in entry.reason and entry.path.name == "a.nii.gz"
    (tmp_path / "model.pt.sha256").write_text("bb22  model.pt\n")
    assert ["the weights" in entry.reason for entry in again().rejected] == [True, True]
    save(tmp_path / "masks" / "b.nii.gz", (head() > 0).astype(np.uint8))
    run = again(mask=tmp_path / "masks")
    assert "(the input; the weights)" in [entry.reason for entry in run.rejected][-1]


def test_29_contrasts_are_compared_one_by_one(tmp_path, weights):
    for contrast in ("T1w", "T2w"):
        save(tmp_path / "in" / f"sub-01_{contrast}.nii.gz")

    def run(**options):
        return cases_with(
            ContrastCases, tmp_path / "in", tmp_path / "out", recipe=Recipe(OPTIONS, weights), **options
        )

    finish(run())
    assert len(run().skipped) == 1
    save(tmp_path / "in" / "sub-01_FLAIR.nii.gz")
    with pytest.raises(InputRejected):
        run().items  # noqa: B018
    assert len(run(leave_out=["FLAIR"]).skipped) == 1


@pytest.mark.parametrize(
    "damage",
    {
        "cut to 2000 bytes": lambda data: data[:200],
        "no bytes": lambda data: b"",
        "cut by one byte": lambda data: data[:-1],
        "another checksum": lambda data: data[:-6] + bytes([data[-6] ^ 255]) + data[-5:],
        "a text": lambda data: gzip.compress(b"disk full\n" * 99),
        "too few voxels": lambda data: gzip.compress(gzip.decompress(data)[:-2]),
        "a NaN": lambda data: gzip.compress(gzip.decompress(data)[:-4] + np.float32(np.nan).tobytes()),
    }.items(),
    ids=lambda each: each[0],
)
def test_20_a_damaged_result_is_done_again(again, tmp_path, caplog, damage):
    path = tmp_path / "out" / "a_sr.nii.gz"
    path.write_bytes(damage[1](path.read_bytes()))
    run = again()
    assert [item["case"] for item in run.items] == ["a"] and len(run.skipped) == 1
    assert say("damaged_result", name=path.name) in caplog.messages
    finish(run)
    assert len(again().skipped) == 2


@pytest.mark.parametrize("record", [None, b"", b"[]", b'{"Synthetic": true, "Sampling": 3}', b"[" * 50_000])
def test_20_a_result_without_its_record_is_done_again(again, tmp_path, record):
    path = tmp_path / "out" / "b_sr.json"
    path.unlink() if record is None else path.write_bytes(record)
    assert [item["case"] for item in again().items] == ["b"]


def test_20_a_result_that_is_not_the_one_of_its_record_is_done_again(again, tmp_path):
    """A run that replaces results may be ended between the record, which comes first, and the result."""
    out = tmp_path / "out"
    (out / "a_sr.nii.gz").write_bytes((out / "b_sr.nii.gz").read_bytes())
    save_volume(head() + 1.0, np.eye(4), out / "b_sr.nii.gz")
    assert [item["case"] for item in again().items] == ["b"]  # both scans got the same volume from `finish`


def test_20_a_damaged_map_is_done_again(again, tmp_path):
    (tmp_path / "out" / "a_sr_std.nii.gz").write_bytes(b"\x1f\x8bhalf")
    assert [item["case"] for item in again(maps=["std"]).items] == ["a", "b"]


def test_20_a_file_of_another_program_is_never_replaced(again, tmp_path):
    (tmp_path / "out" / "a_sr.json").unlink()
    save(tmp_path / "out" / "a_sr.nii.gz")
    run = again()
    assert [entry.reason for entry in run.rejected] == [
        say("foreign_result", name="a.nii.gz", result="a_sr.nii.gz")
    ]


def test_20_a_result_of_another_user_is_never_replaced(again, tmp_path, monkeypatch):
    """Whose permissions let nobody else look into it."""
    result = tmp_path / "out" / "a_sr.nii.gz"
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != result and allowed(path, mode))
    run = again()
    assert [entry.reason for entry in run.rejected] == [
        say("foreign_result", name="a.nii.gz", result="a_sr.nii.gz")
    ]


def replaced_in_place(path, other):
    path.write_bytes(other.read_bytes())


def replaced_by_a_link(path, other):
    path.unlink()
    path.symlink_to(other)


def renamed_over(path, other):
    os.replace(other, path)


@pytest.mark.parametrize("replace", [replaced_in_place, replaced_by_a_link, renamed_over])
@pytest.mark.parametrize("key", ["image", "mask"])
def test_23_a_scan_or_mask_that_was_replaced_while_it_waited_fails_its_case(tmp_path, replace, key):
    scan = save(tmp_path / "in" / "a.nii.gz")
    mask = save(tmp_path / "mask.nii.gz", (head() > 0).astype(np.uint8))
    other = save(tmp_path / "other.nii.gz", head() * 2)
    (item,) = cases_with(CaseFolder, scan, tmp_path / "out", mask=mask).items

    def prepare():
        return BrainMaskd("image", skull="strip")(
            apply_transform(LoadScand("image"), item, unpack_items=False)
        )

    assert prepare()["image"].shape == (1, *head().shape)
    replace(scan if key == "image" else mask, other)
    with pytest.raises((InputRejected, RuntimeError)) as error:
        prepare()
    line = say("changed", name=(scan if key == "image" else mask).name)
    assert line in (str(error.value), str(error.value.__cause__))


def test_23_the_hashes_of_what_was_read_are_in_the_record(again, tmp_path):
    record = json.loads((tmp_path / "out" / "a_sr.json").read_text())
    from hashlib import sha256

    assert record["InputSHA256"] == {"image": sha256((tmp_path / "in" / "a.nii.gz").read_bytes()).hexdigest()}


def sidecar(tmp_path, content: str):
    (tmp_path / "in" / "a.json").write_text(content)


def test_29_another_thickness_in_the_sidecar_is_told(again, tmp_path):
    sidecar(tmp_path, '{"SliceThickness": 5}')
    assert [entry.path.name for entry in again().rejected] == ["a.nii.gz"]
    finish(again(overwrite=True))
    sidecar(tmp_path, '{"SliceThickness": 5.0, "EchoTime": 0.1}')
    assert len(again().skipped) == 2
    for other in ('{"SliceThickness": 3}', "{}"):
        sidecar(tmp_path, other)
        (entry,) = again().rejected
        assert "(the input)" in entry.reason


@pytest.mark.parametrize("later", ['{"SliceThickness": 3}', "{}", "damaged"])
def test_23_a_thickness_that_changed_while_its_scan_waited_fails_the_case(tmp_path, later):
    scan = save(tmp_path / "in" / "a.nii.gz")
    sidecar(tmp_path, '{"SliceThickness": 5}')
    (item,) = CaseFolder(scan, tmp_path / "out").items
    assert LoadScand("image")(item)["image"].shape == (1, *head().shape)
    sidecar(tmp_path, later)
    with pytest.raises(InputRejected) as error:
        LoadScand("image")(item)
    assert str(error.value) == say("changed", name=scan.name)


def test_20_a_pipe_in_place_of_a_record_holds_nothing_up(again, tmp_path):
    (tmp_path / "out" / "a_sr.json").unlink()
    os.mkfifo(tmp_path / "out" / "a_sr.json")
    run = again()
    assert [item["case"] for item in run.items] == ["a"]
    rows = csv.DictReader(write_table(run).read_text().splitlines())
    assert [row["case"] for row in rows] == ["b"]

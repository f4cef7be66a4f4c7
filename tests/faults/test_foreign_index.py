"""Fault 24: a foreign or damaged record, or a full disk, never undoes a run whose results are written."""

import errno
import json

import numpy as np
import pytest

from monai_diffens.data.cases import CaseFolder
from monai_diffens.data.writer import save_volume
from monai_diffens.report import index

OURS = {"GeneratedBy": [{"Version": "1.0"}], "Warnings": ["thick"], "WeightsSHA256": "ab" * 32}
FOREIGN = {
    "an empty object": b"{}",
    "a list": b"[]",
    "half a file": b'{"GeneratedBy": [',
    "no bytes": b"",
    "another encoding": b'{"Warnings": ["\xff\xfe"]}',
    "another program's": b'{"GeneratedBy": [{"Name": "fMRIPrep", "Version": 3}], "Consistency": "good"}',
    "too deep": b"[" * 50_000,
    "numbers where texts are": b'{"GeneratedBy": [{"Version": "1"}], "Warnings": [1, 2]}',
    "a text where numbers are": b'{"GeneratedBy": [{"Version": "1"}], "Spread": {"Mean": "x"}}',
    "weights as a list": b'{"GeneratedBy": [{"Version": "1"}], "PlaneWeights": [1]}',
}


@pytest.fixture
def cases(tmp_path):
    """A folder with a result of ours, and one more result whose record a test writes."""
    for name in ("a", "x"):
        save_volume(np.ones((3, 3, 3)), np.eye(4), tmp_path / f"{name}_sr.nii.gz")
    (tmp_path / "a_sr.json").write_text(json.dumps(OURS))
    run = CaseFolder(tmp_path / "in", tmp_path)
    run.__dict__["_outcome"] = type("Done", (), {"rejected": [], "fine": []})
    return run


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_record_is_named_and_the_others_are_listed(cases, tmp_path, caplog, content):
    (tmp_path / "x_sr.json").write_bytes(content)
    assert index.write_index(cases) == tmp_path / "index.html"
    facts = json.loads((tmp_path / "index.json").read_text())
    assert [entry["Case"] for entry in facts["Cases"]] == ["a"]
    assert [line.split(":")[0] for line in facts["Unreadable"]] == ["x_sr.json"]
    assert [r.message for r in caplog.records if r.levelname == "WARNING"] == facts["Unreadable"]
    assert (tmp_path / "x_sr.json").read_bytes() == content


def test_a_folder_or_a_huge_file_under_a_record_s_name(cases, tmp_path):
    (tmp_path / "x_sr.json").mkdir()
    index.write_index(cases)
    (tmp_path / "x_sr.json").rmdir()
    (tmp_path / "x_sr.json").write_text(json.dumps(OURS | {"Notice": "x" * index.LARGEST_SIDECAR}))
    index.write_index(cases)
    assert len(json.loads((tmp_path / "index.json").read_text())["Unreadable"]) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_a_full_disk_at_the_index_is_a_warning(cases, monkeypatch, caplog, number):
    def full(path):
        raise OSError(number, "no room")

    monkeypatch.setattr(index, "whole_or_absent", full)
    assert index.write_index(cases) is None
    assert [r.levelname for r in caplog.records] == ["WARNING"] and "no room" in caplog.text


def test_a_folder_where_the_index_should_be_is_a_warning(cases, tmp_path, caplog):
    (tmp_path / "index.json").mkdir()
    assert index.write_index(cases) is None
    assert [r.levelname for r in caplog.records] == ["WARNING"]

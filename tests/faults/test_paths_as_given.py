"""Fault 21 and its kind: a path is used as it was given, whatever signs of MONAI's own are in it."""

import monai.bundle
import pytest
from nifti_files import save

from monai_diffens.bundle.before_run import path_as_typed, verbatim
from monai_diffens.bundle.folder import CONFIG, bundle_path
from monai_diffens.inference import find_cases, open_inference
from monai_diffens.messages import say

NAMES = [
    "scan#1",
    "a@#1",
    "x@##y",
    "p%#q",
    "$dir",
    "@seed",
    "%x::y",
    "a b'c\"d",
    "n\nl",
    "back\\slash",
    "é漢",
]


@pytest.mark.parametrize("name", NAMES)
def test_21_a_folder_of_any_name_is_read_and_written(tmp_path, name):
    path = save(tmp_path / name / "a.nii.gz")
    where = {"input": str(path), "output_dir": str(tmp_path / f"out {name}"), "brain_mask": str(path)}
    cases = find_cases(open_inference(bundle_path("sr"), {**where, "force": True}))
    assert cases.items[0]["image"] == str(path) and cases.reading.mask == str(path)
    assert cases.output_dir == tmp_path / f"out {name}"


@pytest.mark.parametrize(
    ("value", "typed", "taken"),
    [
        ("/in/a::1/x.nii", "/in/a#1/x.nii", "/in/a#1/x.nii"),
        ("scan", "scan#1.nii", "scan#1.nii"),
        ("/in/a@1", "/in/a@#1", "/in/a@#1"),
        ("a::1", "'a#1'", "a#1"),
        (2024.1, "2024.10", "2024.10"),
        (20180217064501, "20180217_064501", "20180217_064501"),
        (("Smith", "John"), "Smith,John", "Smith,John"),
        ("a::1", "a::1", "a::1"),
        ("/of/a/config", "/typed", "/of/a/config"),
        ("/of/a/config", None, "/of/a/config"),
    ],
)
def test_21_a_path_that_was_altered_on_its_way_is_what_was_typed(value, typed, taken):
    assert path_as_typed(value, typed) == taken


def test_21_other_values_are_handed_on_as_they_are():
    for value in (1, None, True, [1, 2], "axial/T2w", "/plain/path.nii", {"axial": 1}):
        assert verbatim(value) == value


@pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")
@pytest.mark.parametrize("name", ["scan#1.nii.gz", "a@#1.nii", "p%#q.nii"])
def test_21_a_path_with_signs_of_monai_s_reaches_what_uses_it(tmp_path, capsys, name):
    """From MONAI's own entry, where a configuration refers to it."""
    given = {"input": str(tmp_path / name), "output_dir": str(tmp_path / "o#1"), "logging_file": False}
    root = bundle_path("sr")
    with pytest.raises(SystemExit) as ended:
        monai.bundle.run(
            run_id="inference", config_file=str(root / CONFIG), bundle_root=str(root), report=False, **given
        )
    assert ended.value.code == 1
    assert say("input_missing", name=tmp_path / name) in capsys.readouterr().err

"""A misspelt override or a wrong value: one line, exit status 2, nothing done."""

import ast
import json
import subprocess
from pathlib import Path

import forked
import pytest
from fire.parser import DefaultParseValue
from monai.bundle import ConfigWorkflow

from monai_diffens.bundle.before_run import (
    WRONG_USE,
    as_typed,
    check_before_run,
    ids_of,
    path_as_typed,
    unknown_ids,
)

CONFIG = {
    "imports": ["$import monai_diffens.bundle.before_run as before_run"],
    "bundle_root": ".",
    "num_steps": 1,
    "train": {"iterations": 3, "trainer": {"_target_": "builtins.dict", "a": 1}},
    "initialize": ["$before_run.check_before_run()", "$print('started')"],
    "run": ["$print('num_steps', @num_steps)"],
}

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


@pytest.fixture
def configs(tmp_path):
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "inference.json").write_text(json.dumps(CONFIG))
    (folder / "evaluate.json").write_text(json.dumps({"split": "test", "train::iterations": 4}))
    (folder / "metadata.json").write_text("{}")
    return folder


def workflow(configs: Path, **override) -> ConfigWorkflow:
    return ConfigWorkflow(str(configs / "inference.json"), workflow_type="infer", **override)


def test_ids_of_files_and_overlays():
    assert ids_of({"a": {"b": 1}, "train": {"x": 1}, "+imports": []}) == {"a", "imports", "train", "train#x"}
    assert ids_of({"train#x#deep": 1, "validate::y": 2}) == {"train", "train#x", "validate", "validate#y"}
    assert unknown_ids({"train": {"x": 1, "z": 1}, "b": 1}, {"train", "train#x"}) == ["b", "train#z"]


@pytest.mark.parametrize(
    "good", [{}, {"num_steps": 3}, {"train#iterations": 1}, {"train#trainer#b": 1}, {"split": "val"}]
)
def test_known_overrides_pass(configs, good):
    workflow(configs, **good).initialize()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("num_step", "--num_steps?"),
        ("train#iteration", "--train#iterations?"),
        ("trackin", "--tracking?"),
        ("zzz", "its options: bundle_root"),
    ],
)
def test_unknown_override_names_the_nearest(configs, capsys, name, nearest):
    with pytest.raises(SystemExit) as error:
        workflow(configs, **{name: 3}).initialize()
    told = capsys.readouterr()
    assert error.value.code == WRONG_USE and "started" not in told.out
    assert told.err.startswith(f"--{name}: no such option; ") and nearest in told.err


@pytest.mark.parametrize(
    ("name", "value", "constant"),
    [
        ("num_steps", "false", "False"),
        ("num_steps", "true", "True"),
        ("train#trainer#a", "null", "None"),
        ("train#trainer", [1, {"c": "false"}], "False"),
    ],
)
def test_a_constant_that_would_count_as_text_is_named(configs, capsys, name, value, constant):
    with pytest.raises(SystemExit) as error:
        workflow(configs, **{name: value}).initialize()
    told = capsys.readouterr()
    assert error.value.code == WRONG_USE and "started" not in told.out
    assert told.err.startswith(f"--{name}") and told.err.endswith(f" {constant}\n")


def test_outside_of_a_workflow_there_is_nothing_to_check():
    check_before_run()


INFERENCE = {
    "imports": ["$import monai_diffens.bundle.before_run as before_run"],
    "bundle_root": ".",
    "input": None,
    "output_dir": "$@bundle_root + '/output'",
    "num_steps": 1,
    "restart": 0.5,
    "force": False,
    "amp": "auto",
    "target_spacing": 1.0,
    "fusion": "calibrated",
    "plane_weights": {"axial": 1, "coronal": 1},
    "run": [
        "$before_run.check_before_run()",
        "$print([@input, @output_dir, @num_steps, @restart, @force, @amp, @target_spacing, @plane_weights])",
    ],
    "inference": "@run",
}


@pytest.fixture
def inference(configs):
    (configs / "inference.json").write_text(json.dumps(INFERENCE))
    (configs / "evaluate.json").unlink()
    return configs


def outcome(configs: Path, capsys: pytest.CaptureFixture[str], **options) -> list:
    """What the bundle ran with, from Python."""
    made = workflow(configs, run_id="inference", bundle_root=str(configs.parent), **options)
    made.initialize()
    made.run()
    return ast.literal_eval(capsys.readouterr().out.strip().splitlines()[-1])


def test_values_become_typed(inference, capsys):
    root = str(inference.parent)
    weights = {"axial": 1, "coronal": 1}
    assert outcome(inference, capsys) == [None, f"{root}/output", 1, 0.5, False, "auto", 1.0, weights]
    given = {"num_steps": "3", "force": "false", "amp": "False", "target_spacing": "1,1,2"}
    given |= {"restart": "none", "plane_weights": "axial=2,coronal=0", "output_dir": Path("o")}
    got = outcome(inference, capsys, **given)
    assert got == [None, "o", 3, None, False, False, [1.0, 1.0, 2.0], {"axial": 2.0, "coronal": 0.0}]
    assert outcome(inference, capsys, num_steps="$1 + 1")[2] == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("force", "maybe"),
        ("force", 2),
        ("num_steps", 0),
        ("num_steps", "$1 - 1"),
        ("num_steps", "$1 / 0"),
        ("output_dir", 2024.1),
        ("output_dir", "$nothing"),
        ("input", "@nowhere"),
        ("num_steps", "None"),
        ("fusion", "Axial"),
        ("plane_weights", {"oblique": 1}),
    ],
)
def test_a_wrong_value_is_one_line(inference, capsys, name, value):
    with pytest.raises(SystemExit) as error:
        outcome(inference, capsys, **{name: value})
    told = capsys.readouterr()
    assert error.value.code == WRONG_USE and told.out == ""
    assert told.err.count("\n") == 1 and told.err.startswith(f"--{name} ")


@pytest.mark.parametrize("root", [None, ".", "nowhere", "../models", "inference.json", "a#1"])
def test_a_forgotten_or_wrong_bundle_root_is_named(inference, capsys, monkeypatch, root):
    monkeypatch.chdir(inference)
    given = {} if root is None else {"bundle_root": root}
    with pytest.raises(SystemExit) as error:
        workflow(inference, run_id="inference", **given).run()
    assert error.value.code == WRONG_USE
    assert f"--bundle_root {inference.parent}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mine.yaml", "num_steps: 4\n"),
        ("mine.yml", "# steps\nnum_steps: '4'\n"),
        ("mine.yaml", "{num_steps: 4}"),
        ("mine.json", '{"num_steps": 4}'),
    ],
)
def test_a_configuration_and_an_overlay_in_yaml(inference, capsys, name, content):
    overlay = inference / name
    overlay.write_text(content)
    files = [str(inference / "inference.json"), str(overlay)]
    made = ConfigWorkflow(files, workflow_type="infer", bundle_root=str(inference.parent))
    made.run()
    assert ast.literal_eval(capsys.readouterr().out)[2] == 4
    (inference / "mine.yaml").write_text("num_stepz: 4\n")
    (inference / "more.yml").write_text("seed: 4\n")
    assert outcome(inference, capsys, num_stepz=3)[2] == 1  # known: a file of the folder has it


@pytest.mark.parametrize(
    "text",
    [
        "20180217_064501",
        "2024.10",
        "0x1F",
        "1e5",
        "Smith,John",
        "scan#1.nii",
        "[a]",
        "{a: b}",
        "007",
        "1_0",
        "(x)",
    ],
)
def test_a_path_is_what_was_typed(text):
    assert path_as_typed(DefaultParseValue(text), text) == text


def test_what_is_not_typed_is_left_alone():
    assert path_as_typed(2024.1, None) == 2024.1
    assert path_as_typed("given in Python", "2024.10") == "given in Python"
    assert path_as_typed("2024.10", "'2024.10'") == "2024.10"  # quoted for python-fire
    assert path_as_typed(None, "None") is None
    words = ["run", "inference", "--input", "2024.10", "--output-dir=0x1F", "--report"]
    assert as_typed(words) == {"input": "2024.10", "output_dir": "0x1F", "report": ""}


def run(configs: Path, *arguments: str, files: str = "inference.json") -> subprocess.CompletedProcess[str]:
    config = str([str(configs / name) for name in files.split()])
    return forked.run(["monai.bundle", "run", "--config_file", config, *arguments])


@pytest.mark.slow
def test_command_line(inference):
    root = ("--bundle_root", str(inference.parent))
    (inference / "split.json").write_text(json.dumps({"split": "test"}))
    typed = [*root, "--run_id", "inference", "--split", "val", "--input", "Smith,John", "--force", "false"]
    typed += ["--output_dir=20180217_064501", "--restart", "None", "--num_steps", "3"]
    good = run(inference, *typed, files="inference.json split.json")
    assert good.returncode == 0, good.stderr
    got = ast.literal_eval(good.stdout.splitlines()[-1])
    assert got[:5] == ["Smith,John", "20180217_064501", 3, None, False]
    (inference / "mine.json").write_text(json.dumps({"num_step": 3}))
    bad = run(inference, *root, files="inference.json mine.json")
    assert bad.returncode == WRONG_USE and "started" not in bad.stdout
    assert bad.stderr.splitlines()[-1].endswith("did you mean --num_steps?")
    (inference / "mine.json").unlink()
    # an id of a file that was not given is none of this run
    bad = run(inference, *root, "--split", "val")
    assert bad.returncode == WRONG_USE and "started" not in bad.stdout
    assert bad.stderr.splitlines()[-1].startswith("--split: no such option; its options: amp, bundle_root,")
    text = run(inference, *root, "--num_steps", "false")
    assert text.returncode == WRONG_USE and "started" not in text.stdout
    assert text.stderr.splitlines()[-1].startswith("--num_steps false: ")

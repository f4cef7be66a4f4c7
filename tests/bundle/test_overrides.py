"""A misspelt override: one line, exit status 1, nothing done."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from monai.bundle import ConfigWorkflow

from monai_diffens.bundle.overrides import check_overrides, ids_of, unknown_ids

CONFIG = {
    "imports": ["$import monai_diffens.bundle.overrides as overrides"],
    "bundle_root": ".",
    "num_steps": 1,
    "train": {"iterations": 3, "trainer": {"_target_": "builtins.dict", "a": 1}},
    "initialize": ["$overrides.check_overrides()", "$print('started')"],
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
    assert str(error.value).startswith(f"--{name}: no such option; ") and nearest in str(error.value)
    assert "started" not in capsys.readouterr().out


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
    assert str(error.value).startswith(f"--{name}") and str(error.value).endswith(f" {constant}")
    assert "started" not in capsys.readouterr().out


def test_outside_of_a_workflow_there_is_nothing_to_check():
    check_overrides()


def run(configs: Path, *arguments: str, files: str = "inference.json") -> subprocess.CompletedProcess[str]:
    config = str([str(configs / name) for name in files.split()])
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", config, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("stage", ["initialize", "run"])
def test_command_line(configs, stage):
    (configs / "inference.json").write_text(
        json.dumps(CONFIG | {"initialize": [], stage: [*CONFIG["initialize"], *CONFIG["run"]]})
    )
    both = run(configs, "--split", "val", "--num_steps", "3", files="inference.json evaluate.json")
    assert both.returncode == 0 and "num_steps 3" in both.stdout
    # an id of a file that was not given is none of this run
    bad = run(configs, "--split", "val")
    assert bad.returncode == 1 and "started" not in bad.stdout
    assert bad.stderr.splitlines()[-1].startswith("--split: no such option; its options: bundle_root,")
    text = run(configs, "--num_steps", "false")
    assert text.returncode == 1 and "started" not in text.stdout
    assert text.stderr.splitlines()[-1] == (
        "--num_steps false: would be taken as text; write --num_steps False"
    )

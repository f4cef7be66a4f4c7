"""The super-resolution bundle's configs, metadata and documents."""

import ast
import csv
import hashlib
import inspect
import json
import pydoc
import re
import shutil
from typing import Any

import jsonschema
import monai.bundle
import pytest
from bundle_copies import BUNDLE, ROOT, TRANSLATION
from config_parts import components
from packaging.requirements import Requirement

import monai_diffens
from monai_diffens.options import options_of

CONFIGS = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((BUNDLE / "configs").glob("*.json"))
    if path.stem != "metadata"
}
METADATA = json.loads((BUNDLE / "configs" / "metadata.json").read_text(encoding="utf-8"))
SCHEMA = ROOT.parent / "shared" / "schema" / "meta_schema_20240725.json"
TRAINING = [name for name, config in CONFIGS.items() if "train" in config]
OWN_NETWORK = ("train_planes",)

# MONAI warns whenever it reads a config.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


ALL_COMPONENTS = [(name, part) for name, config in CONFIGS.items() for part in components(config)]


# The configs themselves


@pytest.mark.parametrize("bundle", [BUNDLE, TRANSLATION], ids=lambda path: path.name)
def test_a_bundle_holds_what_a_user_runs_and_nothing_of_research(bundle):
    names = ["inference", "logging", "metadata", "multi_gpu_train", "train", "train_planes"]
    assert sorted(path.stem for path in (bundle / "configs").iterdir()) == names
    assert [path.name for path in sorted((bundle / "models").iterdir())] == ["model.pt", "model.pt.sha256"]
    for path in (bundle / "configs").iterdir():
        assert not re.search(r"\bresearch\.", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "part"), ALL_COMPONENTS, ids=[f"{name}-{part['_target_']}" for name, part in ALL_COMPONENTS]
)
def test_targets_are_full_paths_that_take_these_arguments(name, part):
    target = part["_target_"]
    assert re.fullmatch(r"(monai|monai_diffens|torch|ignite)(\.\w+){2,}", target)
    found = pydoc.locate(target)
    assert callable(found)
    given = {key: value for key, value in part.items() if not re.fullmatch(r"_\w+_", key)}
    inspect.signature(found).bind(**given)


@pytest.mark.parametrize("name", CONFIGS)
def test_imports_and_expressions_are_python(name):
    def walk(value: Any) -> None:
        if isinstance(value, dict | list):
            for part in value.values() if isinstance(value, dict) else value:
                walk(part)
        elif isinstance(value, str) and value.startswith("$"):
            ast.parse(re.sub(r"@[\w#]+", "_", value[1:]).strip())

    walk(CONFIGS[name])


@pytest.mark.parametrize("key", ["network_def", "scheduler", "device"])
def test_configs_agree_on(key):
    alone = {name: config for name, config in CONFIGS.items() if not name.startswith("multi_gpu_")}
    used = {name: config[key] for name, config in alone.items() if key in config}
    used = {name: value for name, value in used.items() if key != "network_def" or name not in OWN_NETWORK}
    assert "inference" in used and "train" in used
    assert all(value == used["train"] for value in used.values()), used


def test_planes_are_trained_as_the_model_uses_them():
    planes, whole = CONFIGS["train_planes"], CONFIGS["train"]
    for key in ("scheduler", "device", "bundle_root"):
        assert planes[key] == whole[key]
    assert {**planes["network_def"], "_target_": ""} == {**whole["network_def"], "_target_": ""}


def test_scans_are_prepared_alike_in_training():
    prepared = {name: CONFIGS[name]["train"]["deterministic_transforms"] for name in TRAINING}
    cuts = ("SpatialPadd", "CropForegroundd")
    further = {"keys", "allow_missing_keys"}  # label maps of heads go the same way
    same = [
        [
            {key: value for key, value in t.items() if key not in further}
            for t in steps
            if not t["_target_"].endswith(cuts)
        ]
        for steps in prepared.values()
    ]
    assert all(steps == same[0] for steps in same)
    for key in ("dataset_dir", "bundle_root"):
        assert len({CONFIGS[name][key] for name in prepared}) == 1
    targets = [part for _, part in ALL_COMPONENTS if part["_target_"].endswith("ResidualTarget")]
    assert targets and all(part.keys() == {"_target_"} for part in targets)  # what is diffused by default
    scaled = [CONFIGS["inference"]["preprocessing"]["transforms"], same[0]]
    percentiles = [
        part.get("percentile")
        for steps in scaled
        for part in steps
        if part["_target_"].endswith("ScaleForegroundPercentiled")
    ]
    assert len(percentiles) == 2 and percentiles[0] == percentiles[1]


# Metadata


def test_metadata_is_of_this_package():
    assert METADATA["version"] == monai_diffens.__version__
    assert METADATA["version"] in METADATA["changelog"]
    required = METADATA["required_packages_version"]
    assert required["monai-diffens"] == monai_diffens.__version__
    core = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
    pinned = pins_of("3.10")  # what installs on the oldest Python installs on every later one
    for package, version in [
        *required.items(),
        *((package, METADATA[key]) for package, key in core.items()),
    ]:
        assert package == "monai-diffens" or pinned[package] == version


def pins_of(python: str) -> dict[str, str]:
    """Versions that constraints.txt gives a Python."""
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    asked = [Requirement(line) for line in lines if line]
    here = {"python_version": python}
    return {
        one.name: str(one.specifier).removeprefix("==")
        for one in asked
        if one.marker is None or one.marker.evaluate(here)
    }


def test_metadata_follows_the_schema(tmp_path):
    if not SCHEMA.is_file():
        pytest.skip("MONAI's metadata schema is not at hand (no network in tests)")
    jsonschema.validate(METADATA, json.loads(SCHEMA.read_text()))
    schema = shutil.copy(SCHEMA, tmp_path)  # where the file is there, verify_metadata does not download
    monai.bundle.verify_metadata(
        meta_file=str(BUNDLE / "configs" / "metadata.json"),
        filepath=schema,
        hash_val=hashlib.sha256(SCHEMA.read_bytes()).hexdigest(),
        hash_type="sha256",
    )


@pytest.mark.parametrize("bundle", [BUNDLE, TRANSLATION], ids=lambda path: path.name)
def test_the_subjects_of_the_data_licence_are_the_packs_and_none_of_its_test_split(data_dir, bundle):
    told = (bundle / "docs" / "data_license.txt").read_text(encoding="utf-8")
    with (data_dir / "participants.tsv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            listed = re.search(rf"^{row['participant_id']} +(\w+) +(.+?)  ", told, re.M)
            if row["split"] == "test":
                assert listed is None
            elif listed is not None:  # the pack has grown since the shipped weights were trained
                assert listed.groups() == (row["split"], row["source_id"])
                told = told.replace(listed.group(0), "")
    assert re.search(r"^sub-\w+ +(train|val) ", told, re.M) is None


def test_documents_are_there():
    assert (BUNDLE / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    card = (BUNDLE / "docs" / "README.md").read_text(encoding="utf-8")
    assert card.count("<!-- results -->") == card.count("<!-- /results -->") == 1
    assert "research use only" in card
    options = re.findall(r"^\| `--(\w+)`", card[card.index("## Run") : card.index("### Input")], re.M)
    assert set(options) < set(options_of(CONFIGS["inference"]))

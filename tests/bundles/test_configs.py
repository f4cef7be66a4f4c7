"""The super-resolution bundle, as MONAI's own bundle commands see it."""

import ast
import csv
import hashlib
import inspect
import json
import logging
import pydoc
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from config_parts import components
from monai.bundle import ConfigWorkflow
from monai.data import load_net_with_metadata

import monai_diffens
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.weights import load_weights

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "bundles" / "diffensembler_sr"
CONFIGS = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((BUNDLE / "configs").glob("*.json"))
    if path.stem != "metadata"
}
METADATA = json.loads((BUNDLE / "configs" / "metadata.json").read_text(encoding="utf-8"))
SCHEMA = ROOT.parent / "shared" / "schema" / "meta_schema_20240725.json"
TRAINING = [name for name, config in CONFIGS.items() if "train" in config]
SMALL_SIDE = 16

# MONAI warns whenever it reads a config.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


ALL_COMPONENTS = [(name, part) for name, config in CONFIGS.items() for part in components(config)]


@pytest.fixture(autouse=True)
def _settings_as_before() -> Iterator[None]:
    """Undo what a bundle's logging.conf and `initialize` set."""
    everyone = [logging.getLogger(), *(logging.getLogger(name) for name in logging.root.manager.loggerDict)]
    before = [(each, each.level, each.handlers[:], each.propagate) for each in everyone]
    yield
    monai.utils.set_determinism(None)
    for each in map(logging.getLogger, ["", *logging.root.manager.loggerDict]):
        each.setLevel(logging.NOTSET)
    for each, level, handlers, propagate in before:
        each.setLevel(level)
        each.handlers[:], each.propagate = handlers, propagate


# The configs themselves


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
    used = {name: config[key] for name, config in alone.items() if key in config and name != "train_planes"}
    assert "inference" in used and "train" in used
    assert all(value == used["inference"] for value in used.values()), used


def test_planes_are_trained_as_the_model_uses_them():
    planes, inference = CONFIGS["train_planes"], CONFIGS["inference"]
    for key in ("scheduler", "device", "bundle_root"):
        assert planes[key] == inference[key]
    bank = set(inference["network_def"]) - set(inspect.signature(DiffEnsembler).parameters)
    assert bank - {"_target_", "reach", "slice_chunk"} == set(planes["network_def"]) - {"_target_"}
    for key in set(planes["network_def"]) - {"_target_"}:
        assert planes["network_def"][key] == inference["network_def"][key]


def test_scans_are_prepared_alike_in_training_and_evaluation():
    prepared = {name: CONFIGS[name]["train"]["deterministic_transforms"] for name in TRAINING}
    if "evaluate" in CONFIGS:
        prepared["evaluate"] = CONFIGS["evaluate"]["preprocessing"]["transforms"]
    same = [[t for t in steps if not t["_target_"].endswith("SpatialPadd")] for steps in prepared.values()]
    assert all(steps == same[0] for steps in same)
    for key in ("dataset_dir", "bundle_root"):
        assert len({CONFIGS[name][key] for name in prepared}) == 1
    assert len({part.get("residual_scale") for _, part in ALL_COMPONENTS}) == 1
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
    pinned = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(), re.M))
    required = METADATA["required_packages_version"]
    assert required["monai-diffens"] == monai_diffens.__version__
    core = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
    for package, version in [
        *required.items(),
        *((package, METADATA[key]) for package, key in core.items()),
    ]:
        if package != "monai-diffens":
            assert (
                pinned[package] == version
                or f"{package}=={version}" in (ROOT / "constraints.txt").read_text()
            )


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


def test_every_training_subject_is_in_the_data_licence(data_dir):
    told = (BUNDLE / "docs" / "data_license.txt").read_text(encoding="utf-8")
    with (data_dir / "participants.tsv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            listed = re.search(rf"^{row['participant_id']} +(\w+) +(.+?)  ", told, re.M)
            if row["split"] == "test":
                assert listed is None
            else:
                assert listed is not None and listed.groups() == (row["split"], row["source_id"])


def test_documents_are_there():
    assert (BUNDLE / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    card = (BUNDLE / "docs" / "README.md").read_text(encoding="utf-8")
    assert card.count("<!-- results -->") == card.count("<!-- /results -->") == 1
    assert "research use only" in card
    options = re.findall(r"^\| `--(\w+)`", card[card.index("## Run") : card.index("### Input")], re.M)
    assert set(options) < set(CONFIGS["inference"])


# MONAI's commands


def test_verify_net_in_out(bundle):
    configs = bundle / "configs"
    monai.bundle.verify_net_in_out(
        net_id="network_def",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
        device="cpu",
    )


@pytest.mark.slow
def test_ckpt_export(bundle, tmp_path):
    exported = tmp_path / "model.ts"
    monai.bundle.ckpt_export(
        net_id="network_def",
        filepath=str(exported),
        ckpt_file=str(bundle / "models" / "model.pt"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.json"),
    )
    scripted, metadata, extra = load_net_with_metadata(str(exported), more_extra_files=("inference.json",))
    assert metadata["name"] == METADATA["name"]
    assert json.loads(extra["inference.json"])["network_def"] == CONFIGS["inference"]["network_def"]
    eager = DiffEnsembler().eval()
    load_weights(eager, bundle / "models" / "model.pt")
    scripted.eval()
    with torch.no_grad():
        for shape in ((1, 2, 16, 16, 16), (1, 2, 21, 34, 18)):  # scripted, so not bound to one size
            x, t = torch.rand(shape), torch.tensor([600.0])
            torch.testing.assert_close(scripted(x, t), eager(x, t), atol=1e-4, rtol=0)
            torch.testing.assert_close(scripted(x), eager(x), atol=1e-4, rtol=0)


@pytest.mark.parametrize("workflow_type", ["train", "inference"])
def test_bundle_load(bundle, workflow_type, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    network = monai.bundle.load(
        bundle.name, bundle_dir=bundle.parent, workflow_type=workflow_type, device="cpu"
    )
    assert isinstance(network, DiffEnsembler)
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    state = network.state_dict()
    assert set(state) == set(weights)
    assert all(torch.equal(state[name], value.float()) for name, value in weights.items())


def test_inference_properties(bundle, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # no input, no output folder: nothing is needed to look at a bundle
    workflow = ConfigWorkflow(str(bundle / "configs" / "inference.json"), workflow_type="inference")
    workflow.initialize()
    assert workflow.check_properties() == []
    assert workflow.version == METADATA["version"]
    assert len(workflow.dataset) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tiny_dataset(tmp_path) -> Path:
    """A BIDS folder of two small made-up volumes, one for training and one for validation."""
    rows = ["participant_id\tsplit\tthroughplane_sharpness"]
    for number, split in enumerate(("train", "val")):
        anat = tmp_path / "data" / f"sub-{number}" / "anat"
        anat.mkdir(parents=True)
        values = np.random.default_rng(number).integers(1, 300, (SMALL_SIDE,) * 3).astype(np.int16)
        nib.Nifti1Image(values, np.eye(4)).to_filename(anat / f"sub-{number}_T1w.nii.gz")
        rows.append(f"sub-{number}\t{split}\tT1w=0.9")
    (tmp_path / "data" / "participants.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path / "data"


@pytest.mark.parametrize("name", TRAINING)
def test_training_properties(bundle, name, tiny_dataset, tmp_path):
    workflow = ConfigWorkflow(
        str(bundle / "configs" / f"{name}.json"),
        workflow_type="train",
        dataset_dir=str(tiny_dataset),
        output_dir=str(tmp_path / "out"),
    )
    workflow.initialize()
    assert workflow.check_properties() == []

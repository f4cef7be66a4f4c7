"""The super-resolution bundle, as MONAI's own bundle commands see it."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_copies import BUNDLE
from monai.bundle import ConfigWorkflow
from monai.data import load_net_with_metadata

from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.weights import load_weights

CONFIGS = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((BUNDLE / "configs").glob("*.json"))
    if path.stem != "metadata"
}
METADATA = json.loads((BUNDLE / "configs" / "metadata.json").read_text(encoding="utf-8"))
TRAINING = [name for name, config in CONFIGS.items() if "train" in config]
SMALL_SIDE = 16

# MONAI warns whenever it reads a config.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


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
    rows = ["participant_id\tsplit"]
    for number, split in enumerate(("train", "val")):
        anat = tmp_path / "data" / f"sub-{number}" / "anat"
        anat.mkdir(parents=True)
        values = np.random.default_rng(number).integers(1, 300, (SMALL_SIDE,) * 3).astype(np.int16)
        nib.Nifti1Image(values, np.eye(4)).to_filename(anat / f"sub-{number}_T1w.nii.gz")
        rows.append(f"sub-{number}\t{split}")
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

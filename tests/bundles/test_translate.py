"""The translation bundle: its configs agree with each other, and it runs on any subset of contrasts."""

import inspect
import json
import pydoc
import re
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

import monai_diffens
from monai_diffens.data.bids import CONTRASTS
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.weights import load_weights, save_weights

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "bundles" / "diffensembler_translate"
SUPER_RESOLUTION = ROOT / "bundles" / "diffensembler_sr"
NAMES = ("inference", "train_planes", "train", "evaluate")
CONFIGS = {name: json.loads((BUNDLE / "configs" / f"{name}.json").read_text()) for name in NAMES}
METADATA = json.loads((BUNDLE / "configs" / "metadata.json").read_text())
SCHEMA = ROOT.parent / "shared" / "schema" / "meta_schema_20240725.json"
TINY = {"channels": [8, 8, 16], "norm_num_groups": 4, "num_head_channels": 8}

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


PARTS = [(name, part) for name in NAMES for part in components(CONFIGS[name])]


@pytest.mark.parametrize(("name", "part"), PARTS, ids=[f"{n}-{p['_target_']}" for n, p in PARTS])
def test_targets_and_their_arguments_exist(name, part):
    found = pydoc.locate(part["_target_"])
    assert found is not None and part["_target_"].count(".") > 1
    given = {key: None for key in part if not re.fullmatch(r"_\w+_", key)}
    inspect.signature(found).bind(**given)


def test_configs_agree_with_each_other():
    for key in ("network_def", "scheduler", "contrasts", "device"):
        used = [config[key] for name, config in CONFIGS.items() if key in config and name != "train_planes"]
        assert len(used) >= 2 and all(value == used[0] for value in used), key
    planes, whole = CONFIGS["train_planes"]["network_def"], CONFIGS["inference"]["network_def"]
    assert planes["num_class_embeds"] == len(whole["conditions"])
    assert {**planes, "_target_": ""} == {
        "_target_": "",
        "num_class_embeds": 4,
        **{key: whole[key] for key in ("channels", "detail_gain")},
    }
    # order of the network's conditions, and which of them is measured
    assert whole["conditions"] == CONFIGS["train_planes"]["contrasts"] == list(CONTRASTS)
    targets = [part for _, part in PARTS if "residual_scale" in part]
    assert len(targets) == 6
    assert {(part["residual_scale"], part["base"]) for part in targets} == {(0.3, "brain")}
    measured = {part["measured_channel"] for _, part in PARTS if "measured_channel" in part}
    assert measured == {CONTRASTS.index("FLAIR")}
    scaled = [p["percentile"] for _, p in PARTS if p["_target_"].endswith("ScaleForegroundPercentiled")]
    assert scaled == [50.0] * 4
    steps = [CONFIGS[name]["train"]["deterministic_transforms"] for name in ("train", "train_planes")]
    assert steps[0] == steps[1]


def test_metadata():
    assert METADATA["version"] == monai_diffens.__version__
    assert METADATA["network_data_format"]["inputs"]["image"]["num_channels"] == 1 + len(CONTRASTS)
    other = json.loads((SUPER_RESOLUTION / "configs" / "metadata.json").read_text())
    for key in ("monai_version", "pytorch_version", "numpy_version", "required_packages_version"):
        assert METADATA[key] == other[key]
    model = CONFIGS["inference"]["parameters"]["model"]
    assert model == f"{BUNDLE.name} {METADATA['version']}"
    if SCHEMA.is_file():
        jsonschema.validate(METADATA, json.loads(SCHEMA.read_text()))


def test_documents():
    assert (BUNDLE / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    logging = (BUNDLE / "configs" / "logging.conf").read_text()
    assert logging == (SUPER_RESOLUTION / "configs" / "logging.conf").read_text()
    card = (BUNDLE / "docs" / "README.md").read_text()
    assert card.count("<!-- results -->") == card.count("<!-- /results -->") == 1
    options = re.findall(r"^\| `--(\w+)`", card[card.index("## Run") : card.index("### Input")], re.M)
    assert set(options) < set(CONFIGS["inference"]) and len(options) > 15
    assert "research use only" in card.lower()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A copy of the bundle with a small random network."""
    copy = tmp_path_factory.mktemp("bundles") / BUNDLE.name
    (copy / "configs").mkdir(parents=True)
    for name, config in CONFIGS.items():
        config = json.loads(json.dumps(config))
        config["network_def"] |= TINY
        (copy / "configs" / f"{name}.json").write_text(json.dumps(config))
    (copy / "configs" / "metadata.json").write_text(json.dumps(METADATA))
    torch.manual_seed(0)
    network = DiffEnsembler(conditions=CONTRASTS, detail_gain=2.0, **TINY)
    with torch.no_grad():
        for parameter in network.parameters():  # the last layers start at zero
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    save_weights(network.state_dict(), copy / "models" / "model.pt")
    return copy


def head(kind: int, spacing: tuple[float, float, float] = (1, 1, 1), shift: float = 0.0) -> nib.Nifti1Image:
    """A made-up scan of one head, each kind of another brightness."""
    shape = tuple(round(20 / step) for step in spacing)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -np.array(spacing) * (np.array(shape) - 1) / 2
    place = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1) @ affine[:3, :3]
    radius = np.square((place + affine[:3, 3]) / 9).sum(-1)
    affine[0, 3] += shift
    texture = 1 + 0.3 * np.sin(place[..., 0] + kind)
    image = nib.Nifti1Image(
        (np.clip(1.5 - radius, 0, 1) * texture * 100 * (kind + 1)).astype(np.float32), affine
    )
    image.header.set_xyzt_units("mm")
    return image


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    given = {
        "sub-all": {name: head(kind) for kind, name in enumerate(CONTRASTS)},
        "sub-two": {"T2w": head(2), "FLAIR": head(3, (1, 1, 4))},
        "sub-low": {"FLAIR": head(3, (1, 1, 4))},
        "sub-moved": {"T1w": head(0), "T2w": head(2, shift=0.5)},
        "sub-apart": {"T1w": head(0), "T2w": head(2, shift=30)},
        "sub-none": {"PDw": head(0)},
    }
    for case, images in given.items():
        (folder / case).mkdir()
        for name, image in images.items():
            image.to_filename(folder / case / f"{case}_{name}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def results(tiny, cases, tmp_path_factory) -> tuple[Path, int]:
    """Output folder and exit status of a run over all cases."""
    out = tmp_path_factory.mktemp("results")
    workflow = ConfigWorkflow(
        str(tiny / "configs" / "inference.json"),
        workflow_type="inference",
        logging_file=str(BUNDLE / "configs" / "logging.conf"),
        bundle_root=str(tiny),
        input=str(cases),
        output_dir=str(out),
        save_weights=True,
        condition_weights={"T1w": 0.5},
    )
    workflow.initialize()
    with pytest.raises(SystemExit) as stop:
        workflow.run()
    return out, stop.value.code


@pytest.mark.bad_input(23, 24)
def test_any_subset_gives_a_result_and_a_bad_case_stops_nothing(results):
    out, status = results
    done = sorted(path.name.split("_")[0] for path in out.glob("*_desc-synthetic_FLAIR.nii.gz"))
    assert done == ["sub-all", "sub-low", "sub-moved", "sub-two"] and status == 1


def test_results_lie_on_the_first_contrast(results, cases):
    for case, first in (("sub-all", "T1w"), ("sub-two", "T2w")):
        made = nib.load(results[0] / f"{case}_desc-synthetic_FLAIR.nii.gz")
        scan = nib.load(cases / case / f"{case}_{first}.nii.gz")
        assert made.shape == scan.shape
        np.testing.assert_allclose(made.affine, scan.affine, atol=1e-5)
        assert not made.get_fdata()[scan.get_fdata() == 0].any()
    assert nib.load(results[0] / "sub-low_desc-synthetic_FLAIR.nii.gz").shape == (20, 20, 20)


@pytest.mark.bad_input(24)
def test_sidecars_tell_sources_and_settings(results):
    facts = {
        case: json.loads((results[0] / f"{case}_desc-synthetic_FLAIR.json").read_text())
        for case in ("sub-all", "sub-two", "sub-moved")
    }
    assert facts["sub-all"]["SynthesizedFrom"] == [f"sub-all_{name}.nii.gz" for name in CONTRASTS]
    assert facts["sub-two"]["SynthesizedFrom"] == ["sub-two_T2w.nii.gz", "sub-two_FLAIR.nii.gz"]
    told = facts["sub-all"]["Sampling"]
    assert told["model"].startswith("diffensembler_translate ") and told["condition_weights"] == {"T1w": 0.5}
    assert (told["seed"], told["num_steps"], told["fusion"]) == (0, 1, "calibrated")
    assert "T2w lies on another grid: resampled to that of T1w" in facts["sub-moved"]["Warnings"]


def test_weight_maps_sum_to_one_in_the_brain(results):
    maps = sorted(results[0].glob("sub-two_desc-synthetic_FLAIR_weight-*.nii.gz"))
    assert len(maps) == 12
    weights = np.stack([nib.load(path).get_fdata() for path in maps])
    brain = nib.load(results[0] / "sub-two_desc-synthetic_FLAIR.nii.gz").get_fdata() > 0
    np.testing.assert_allclose(weights.sum(0)[brain], 1, atol=1e-4)
    absent = [number for number, path in enumerate(maps) if "T1w" in path.name]
    assert len(absent) == 6 and not weights[absent].any()
    present = [number for number in range(12) if number not in absent]
    assert all(weights[number][brain].std() > 1e-5 for number in present)


def test_result_agrees_with_the_low_resolution_scan(results, cases):
    made = nib.load(results[0] / "sub-low_desc-synthetic_FLAIR.nii.gz").get_fdata()
    scan = nib.load(cases / "sub-low" / "sub-low_FLAIR.nii.gz").get_fdata()
    again = made.reshape(20, 20, 5, 4).mean(-1)
    inside = scan > 0.5 * scan.max()
    assert np.abs(again - scan)[inside].mean() < 0.03 * scan.max()


def test_bundle_commands(tiny):
    configs = tiny / "configs"
    monai.bundle.verify_net_in_out(
        net_id="network_def",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
        device="cpu",
    )


@pytest.fixture
def dataset(tmp_path) -> Path:
    """A BIDS folder of three small made-up subjects, the last for validation; one lacks an aligned T2w."""
    rows = ["participant_id\tsplit\tresidual_shift_mm"]
    for number, shift, split in ((1, 0.2, "train"), (2, 3.0, "train"), (3, 0.2, "val")):
        anat = tmp_path / "data" / f"sub-0{number}" / "anat"
        anat.mkdir(parents=True)
        for kind, name in enumerate(CONTRASTS):
            head(kind).to_filename(anat / f"sub-0{number}_{name}.nii.gz")
        rows.append(f"sub-0{number}\t{split}\tFLAIR=0.1 T2w={shift} ce-gadolinium_T1w=0.1")
    (tmp_path / "data" / "participants.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path / "data"


@pytest.mark.slow
def test_training_end_to_end(tiny, dataset, tmp_path):
    def train(name: str, **options: Any) -> None:
        workflow = ConfigWorkflow(
            str(tiny / "configs" / f"{name}.json"),
            workflow_type="train",
            dataset_dir=str(dataset),
            bundle_root=str(tiny),
            output_dir=str(tmp_path / name),
            max_epochs=1,
            iterations=2,
            val_interval=1,
            val_num_steps=1,
            val_region=[24, 24, 24],
            **options,
        )
        workflow.initialize()
        workflow.run()
        monai.utils.set_determinism(None)

    train("train_planes", planes=["axial", "coronal", "sagittal"])
    folder = str(tmp_path / "train_planes")
    folders = dict.fromkeys(("axial", "coronal", "sagittal"), folder)
    train("train", plane_weights=folders, draws=3, refresh=1)
    network = DiffEnsembler(conditions=CONTRASTS, detail_gain=2.0, **TINY)
    load_weights(network, tmp_path / "train" / "model.pt")
    assert any(parameter.any() for parameter in network.calibrator.conv_out.parameters())
    for stage in ("train_planes", "train"):  # validated by sampling, with a picture
        assert torch.load(tmp_path / stage / "last.pt", weights_only=True)["best"]["epoch"] == 1
        assert (tmp_path / stage / "previews" / "epoch_0001.png").is_file()

"""The translation bundle's configs agree with each other and with its documents."""

import inspect
import json
import pydoc
import re

import jsonschema
import pytest
import torch
from bundle_copies import BUNDLE as SUPER_RESOLUTION
from bundle_copies import ROOT
from bundle_copies import TRANSLATION as BUNDLE
from config_parts import components

import monai_diffens
from monai_diffens.data.bids import CONTRASTS
from monai_diffens.networks.weights import load_weights
from research.baselines.regression_unet import RegressionUNet
from research.segmentation.segmentation_unet import SegmentationFolds

NAMES = (
    "inference",
    "train_planes",
    "train",
    "train_regression",
    "train_segmentation",
    "evaluate",
    "segment",
)
OWN_NETWORK = ("train_planes", "train_regression", "train_segmentation")
CONFIGS = {name: json.loads((BUNDLE / "configs" / f"{name}.json").read_text()) for name in NAMES}
METADATA = json.loads((BUNDLE / "configs" / "metadata.json").read_text())
SCHEMA = ROOT.parent / "shared" / "schema" / "meta_schema_20240725.json"

PARTS = [(name, part) for name in NAMES for part in components(CONFIGS[name])]


@pytest.mark.parametrize(("name", "part"), PARTS, ids=[f"{n}-{p['_target_']}" for n, p in PARTS])
def test_targets_and_their_arguments_exist(name, part):
    found = pydoc.locate(part["_target_"])
    assert found is not None and part["_target_"].count(".") > 1
    given = {key: None for key in part if not re.fullmatch(r"_\w+_", key)}
    inspect.signature(found).bind(**given)


def test_configs_agree_with_each_other():
    for key in ("network_def", "scheduler", "contrasts", "device"):
        used = [config[key] for name, config in CONFIGS.items() if key in config and name not in OWN_NETWORK]
        assert len(used) >= 2 and all(value == used[0] for value in used), key
    planes, whole = CONFIGS["train_planes"]["network_def"], CONFIGS["inference"]["network_def"]
    assert planes["num_class_embeds"] == len(whole["conditions"])
    assert {**planes, "_target_": ""} == {
        "_target_": "",
        "num_class_embeds": 4,
        **{key: value for key, value in whole.items() if key not in ("_target_", "conditions")},
    }
    # order of the network's conditions, and which of them is measured
    assert whole["conditions"] == CONFIGS["train_planes"]["contrasts"] == list(CONTRASTS)
    targets = [part for _, part in PARTS if "residual_scale" in part]
    assert len(targets) == 11
    assert {(part["residual_scale"], part.get("base", "brain")) for part in targets} == {(0.3, "brain")}
    measured = {part["measured_channel"] for _, part in PARTS if "measured_channel" in part}
    assert measured == {CONTRASTS.index("FLAIR")}
    scaled = [p["percentile"] for _, p in PARTS if p["_target_"].endswith("ScaleForegroundPercentiled")]
    assert scaled == [50.0] * 6
    names = ("train", "train_planes", "train_regression")
    steps = [CONFIGS[name]["train"]["deterministic_transforms"] for name in names]
    assert steps[0] == steps[1] == steps[2]


def test_the_regression_baseline_trains_on_what_the_fusion_trains_on():
    fusion, regression = CONFIGS["train"], CONFIGS["train_regression"]
    assert regression["network_def"] == CONFIGS["evaluate"]["regression_def"]
    assert regression["held_out"] == fusion["held_out"] and regression["seed"] == fusion["seed"]
    crops = [config["train"]["random_transforms"][0] for config in (fusion, regression)]
    assert crops[0] | {"roi_size": None} == crops[1] | {"roi_size": None}
    rest = [config["train"]["random_transforms"][1:] for config in (fusion, regression)]
    assert rest[0] == rest[1]
    window = CONFIGS["evaluate"]["regression_inferer"]["window"]
    assert [window] * 3 == crops[1]["roi_size"]
    priors = {tuple(part["prior_stds"]) for _, part in PARTS if "prior_stds" in part}
    assert len(priors) == 1


def test_the_shipped_regression_baseline_is_small_and_trained():
    path = BUNDLE / "models" / "regression.pt"
    assert path.stat().st_size < 6e6
    options = {key: value for key, value in CONFIGS["evaluate"]["regression_def"].items() if key[0] != "_"}
    network = RegressionUNet(**options)
    load_weights(network, path)
    assert all(parameter.any() for parameter in network.unet.final_conv.parameters())


def test_the_segmentation_is_evaluated_as_it_was_trained():
    train, segment = CONFIGS["train_segmentation"], CONFIGS["segment"]
    assert train["folds_def"] | {"num_folds": train["num_folds"]} == segment["segmenter_def"]
    options = {key: value for key, value in train["network_def"].items() if key != "_target_"}
    assert options.items() <= train["folds_def"].items()
    assert segment["windows"]["roi_size"] == [train["patch_size"]] * 3
    validated = train["validate"]["inferer"]
    assert {key: segment["windows"][key] for key in ("overlap", "mode")}.items() <= validated.items()
    engine = inspect.signature(pydoc.locate(segment["segmentation"]["_target_"])).parameters
    assert list(engine["segmented"].default) == train["contrasts"]
    for number in (0, 1):  # loaded and turned alike
        prepared = CONFIGS["evaluate"]["preprocessing"]["transforms"][number]
        trained = train["train"]["deterministic_transforms"][number]
        assert {**prepared, "keys": "", "allow_missing_keys": True} == {
            **trained,
            "keys": "",
            "allow_missing_keys": True,
        }


def test_the_shipped_segmentation_is_small_and_of_three_trained_folds():
    path = BUNDLE / "models" / "segmentation.pt"
    assert path.stat().st_size < 8e6
    options = {key: value for key, value in CONFIGS["segment"]["segmenter_def"].items() if key[0] != "_"}
    network = SegmentationFolds(**options)
    load_weights(network, path)
    image = torch.rand(1, 2, 32, 32, 32)
    with torch.no_grad():
        logits = network.eval()(image)
    assert logits.shape == (1, 3, 32, 32, 32) and len({float(fold.sum()) for fold in logits[0]}) == 3


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

"""The translation bundle's configs agree with each other and with its documents."""

import inspect
import json
import pydoc
import re

import jsonschema
import pytest
from bundle_copies import BUNDLE as SUPER_RESOLUTION
from bundle_copies import ROOT
from bundle_copies import TRANSLATION as BUNDLE
from config_parts import components

import monai_diffens
from monai_diffens.contrasts import CONTRASTS
from monai_diffens.options import options_of

NAMES = ("inference", "train_planes", "train")
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
    for key in ("scheduler", "contrasts", "device"):
        used = [config[key] for config in CONFIGS.values() if key in config]
        assert len(used) >= 2 and all(value == used[0] for value in used), key
    planes, whole = CONFIGS["train_planes"]["network_def"], CONFIGS["train"]["network_def"]
    for key in set(planes) & set(whole) - {"_target_", "conditions"}:
        assert planes[key] == whole[key], key
    assert CONFIGS["inference"]["network_def"] == whole
    assert planes["conditions"] == len(whole["conditions"])
    assert planes["condition_channels"] == planes["conditions"] * (2 * whole["reach"] + 1)
    assert planes["num_class_embeds"] == 2 * planes["conditions"]
    # order of the network's conditions, and which of them is measured
    for config in CONFIGS.values():
        assert config.get("contrasts", list(CONTRASTS)) == list(CONTRASTS)
    assert whole["conditions"] == list(CONTRASTS)
    targets = [part for _, part in PARTS if part["_target_"].endswith("ResidualTarget")]
    assert len(targets) == 3
    for part in targets:
        assert part["base"] == "brain" and part["scale"] == 0.35
        assert part["measured"] in (CONTRASTS.index("FLAIR"), "$@contrasts.index(@target)")
    assert CONFIGS["inference"]["target"] == "FLAIR"
    scaled = [p["percentile"] for _, p in PARTS if p["_target_"].endswith("ScaleForegroundPercentiled")]
    assert scaled == [50.0] * 3
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
    assert set(options) < set(options_of(CONFIGS["inference"])) and len(options) > 15
    assert "research use only" in card.lower()

"""The configs of the evaluation and of its baselines agree with the bundles that they measure."""

import importlib
import inspect
import json
import pydoc
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_diffens.networks.weights import load_weights
from monai_diffens.target import ResidualTarget
from research.baselines.regression_unet import RegressionUNet
from research.segmentation.segmentation_unet import SegmentationFolds

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "research" / "weights"
BUNDLES = {"sr": "diffensembler_sr", "translate": "diffensembler_translate"}


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Contents of a folder's configs by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


CONFIGS = {kind: read(ROOT / "research" / "configs" / kind) for kind in BUNDLES}
BUNDLED = {kind: read(ROOT / "bundles" / bundle / "configs") for kind, bundle in BUNDLES.items()}


def components(config: Any) -> list[dict[str, Any]]:
    """Every part of a config that names a `_target_`."""
    inner = list(config.values()) if isinstance(config, dict) else config if isinstance(config, list) else []
    found = [part for value in inner for part in components(value)]
    return [config, *found] if isinstance(config, dict) and "_target_" in config else found


PARTS = [
    (f"{kind}/{name}", part)
    for kind, configs in CONFIGS.items()
    for name, config in configs.items()
    for part in components(config)
]


@pytest.mark.parametrize(("name", "part"), PARTS, ids=[f"{n}-{p['_target_']}" for n, p in PARTS])
def test_targets_are_full_paths_that_take_these_arguments(name, part):
    target = part["_target_"]
    assert re.fullmatch(r"(monai|monai_diffens|research|torch|ignite)(\.\w+){2,}", target)
    given = {key: value for key, value in part.items() if not re.fullmatch(r"_\w+_", key)}
    inspect.signature(pydoc.locate(target)).bind(**given)


def texts(config: Any) -> list[str]:
    """Every text of a config."""
    inner = config.values() if isinstance(config, dict) else config if isinstance(config, list) else []
    return [config] if isinstance(config, str) else [text for value in inner for text in texts(value)]


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in CONFIGS for name in CONFIGS[kind]])
def test_what_expressions_name_is_there(kind, name):
    config = CONFIGS[kind][name]
    base = CONFIGS[kind]["evaluate"]  # of an overlay
    listed = config.get("imports") or [*base["imports"], *config.get("+imports", [])]
    modules = dict(re.search(r"import ([\w.]+)(?: as (\w+))?$", line).groups() for line in listed)
    names = {alias or dotted: importlib.import_module(dotted) for dotted, alias in modules.items()}
    used = 0
    for text in texts(config):
        for alias, attribute in re.findall(r"(?<![\w.@'#])(\w+)\.(\w+)", text if text[:1] == "$" else ""):
            if alias in names:
                assert hasattr(names[alias], attribute), f"{alias}.{attribute}"
                used += 1
    assert used or name in ("regression", "joint")


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_is_measured_is_what_ships(kind):
    evaluate, inference, train = (
        CONFIGS[kind]["evaluate"],
        *(BUNDLED[kind][n] for n in ("inference", "train")),
    )
    for key in ("network_def", "scheduler", "device"):
        assert evaluate[key] == inference[key]
    assert evaluate.get("residual_gain") == inference.get("residual_gain")
    cuts = ("SpatialPadd", "CropForegroundd")
    if kind == "sr":
        trained = [t for t in train["train"]["deterministic_transforms"] if not t["_target_"].endswith(cuts)]
        assert evaluate["preprocessing"]["transforms"] == trained
    else:
        assert evaluate["contrasts"] == inference["contrasts"]
        parts = components(list(CONFIGS[kind].values()))
        scaled = [p["percentile"] for p in parts if p["_target_"].endswith("ScaleForegroundPercentiled")]
        assert scaled == [50.0] * 2
    for config in CONFIGS[kind].values():
        for key, value in (("bundle_root", f"bundles/{BUNDLES[kind]}"), ("dataset_dir", "../shared/data")):
            assert config.get(key, value) == value


@pytest.mark.parametrize("kind", BUNDLES)
def test_a_regression_learns_what_the_experts_learn(kind):
    overlay, planes = CONFIGS[kind]["regression"], BUNDLED[kind]["train_planes"]
    target = ResidualTarget(**{key: value for key, value in planes["target"].items() if key != "_target_"})
    assert overlay["network_def"]["residual_scale"] == target.scale
    assert overlay["network_def"].get("base", "brain") == target.base
    if kind == "translate":
        wanted = planes["contrasts"][overlay["network_def"]["target"]]
        assert wanted == "FLAIR" and overlay["network_def"]["num_targets"] == len(planes["contrasts"])
        assert overlay["train::prepare_batch"]["prior_std"] == overlay["network_def"]["prior_std"]
    evaluated = CONFIGS[kind]["evaluate"]["regression_inferer"]
    assert evaluated["window"] == overlay["crop_size"]
    assert evaluated.get("overlap") == overlay["validate::inferer"].get("overlap")


def test_the_segmentation_is_evaluated_as_it_was_trained():
    train, segment, evaluate = (
        CONFIGS["translate"][n] for n in ("train_segmentation", "segment", "evaluate")
    )
    assert train["folds_def"] | {"num_folds": train["num_folds"]} == segment["segmenter_def"]
    options = {key: value for key, value in train["network_def"].items() if key != "_target_"}
    assert options.items() <= train["folds_def"].items()
    assert segment["windows"]["roi_size"] == [train["patch_size"]] * 3
    validated = train["validate"]["inferer"]
    assert {key: segment["windows"][key] for key in ("overlap", "mode")}.items() <= validated.items()
    engine = inspect.signature(pydoc.locate(segment["segmentation"]["_target_"])).parameters
    assert list(engine["segmented"].default) == train["contrasts"]
    same = {"keys": "", "allow_missing_keys": True}
    for number in (0, 1):  # loaded and turned alike
        prepared = evaluate["preprocessing"]["transforms"][number]
        assert prepared | same == train["train"]["deterministic_transforms"][number] | same


# Weights


@pytest.mark.parametrize("kind", BUNDLES)
def test_regressions_are_small_and_trained(kind):
    path = WEIGHTS / kind / "regression.pt"
    assert path.stat().st_size < 6e6
    definition = CONFIGS[kind]["evaluate"]["regression_def"]
    network = RegressionUNet(**{key: value for key, value in definition.items() if key != "_target_"})
    load_weights(network, path)
    assert all(parameter.any() for parameter in network.unet.final_conv.parameters())  # they start at zero


def test_the_segmentation_is_small_and_of_three_trained_folds():
    path = WEIGHTS / "translate" / "segmentation.pt"
    assert path.stat().st_size < 8e6
    definition = CONFIGS["translate"]["segment"]["segmenter_def"]
    network = SegmentationFolds(**{key: value for key, value in definition.items() if key != "_target_"})
    load_weights(network, path)
    with torch.no_grad():
        logits = network.eval()(torch.rand(1, 2, 32, 32, 32))
    assert logits.shape == (1, 3, 32, 32, 32) and len({float(fold.sum()) for fold in logits[0]}) == 3

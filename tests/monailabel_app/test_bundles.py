"""What the app offers of each bundle that ships, and how it runs a configuration."""

import json
import logging
import shutil
import sys
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from monai_diffens.messages import InputRejected
from monai_diffens.options import values_of

BUNDLES = Path(__file__).parents[2] / "bundles"
SHIPPED = sorted(path.parents[1] for path in BUNDLES.glob("*/configs/inference.json"))

# MONAI warns whenever it reads a config.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


@pytest.fixture(scope="module")
def module(app_module):
    return app_module("bundles")


def test_find_bundles(module, tmp_path):
    for name in ("a", "b", "no_weights"):
        (tmp_path / name / "configs").mkdir(parents=True)
        (tmp_path / name / "configs" / "inference.json").write_text("{}")
    for name in ("a", "b"):
        (tmp_path / name / "models").mkdir()
        (tmp_path / name / "models" / "model.pt").touch()
    assert module.find_bundles(tmp_path) == {"a": tmp_path / "a", "b": tmp_path / "b"}
    assert module.find_bundles(tmp_path, "b") == {"b": tmp_path / "b"}
    with pytest.raises(SystemExit, match=r"no bundle no_weights in .*; it holds a, b"):
        module.find_bundles(tmp_path, "a, no_weights")


@pytest.mark.parametrize("bundle", SHIPPED, ids=lambda path: path.name)
def test_what_a_shipped_bundle_offers(module, app_module, bundle):
    config = module.config_of(bundle / "configs" / "inference.json")
    offered = module.offered_parameters(bundle / "configs" / "inference.json")
    assert {"num_steps", "num_samples", "seed", "fusion"} <= set(offered)
    defaults = app_module("parameters").checked_parameters({}, offered)
    assert defaults == {name: config[name] for name in offered}
    assert "weights_file" in values_of(config)
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    network = parser.get_parsed_content("network_def")
    for fusion in offered["fusion"]:
        network.check_fusion(fusion)


def test_offers_that_the_configuration_lacks(module, tmp_path):
    path = tmp_path / "inference.json"
    for offers in ({"num_step": "@num_step"}, {"num_steps": 2}, {"num_steps": [2, 1]}):
        path.write_text(json.dumps({"num_steps": 1, "displayable_configs": offers}))
        with pytest.raises(SystemExit, match="not a value of the configuration"):
            module.offered_parameters(path)


@pytest.fixture
def bundle(tmp_path):
    """Function (run) to the configuration of a bundle that does just that."""
    shutil.copytree(SHIPPED[0] / "configs", tmp_path / "bundle" / "configs")

    def write(*run: str) -> Path:
        path = tmp_path / "bundle" / "configs" / "inference.json"
        imports = ["$import logging", "$import sys", "$import os"]
        path.write_text(json.dumps({"imports": imports, "bundle_root": ".", "given": None, "run": list(run)}))
        return path

    return write


def test_a_run_returns_what_was_logged_and_leaves_no_trace(module, bundle):
    path, before = bundle("$logging.getLogger('monai_diffens.x').info(@given)"), sys.path[:]
    logger = logging.getLogger("monai_diffens")
    level, handlers = logger.level, logger.handlers[:]
    assert module.run_bundle(path, "inference", {"given": "told"}) == ["told"]
    assert (sys.path, logger.level, logger.handlers) == (before, level, handlers)


@pytest.mark.parametrize(
    ("run", "line"),
    [
        ("$sys.exit('the line')", "the line"),
        (
            "$(print('progress', file=sys.stderr), print('the line', file=sys.stderr), sys.exit(1))",
            "the line",
        ),
        (
            "$(print('the line', file=sys.stderr), print(' 50%|##  | 1/2', file=sys.stderr), sys.exit(1))",
            "the line",
        ),
        ("$(logging.getLogger('monai_diffens').error('the line'), sys.exit(1))", "the line"),
    ],
)
def test_a_stop_of_the_bundle_becomes_its_line(module, bundle, run, line):
    with pytest.raises(InputRejected, match=f"^{line}$"):
        module.run_bundle(bundle(run), "inference", {})


def test_a_stop_with_status_0_is_none(module, bundle):
    assert module.run_bundle(bundle("$sys.exit(0)"), "inference", {}) == []

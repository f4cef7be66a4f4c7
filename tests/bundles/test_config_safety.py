"""What holds for the config files of every bundle."""

import inspect
import json
import pydoc
import re
from pathlib import Path

import pytest
from config_parts import components

CONFIGS = {
    f"{path.parents[1].name}/{path.stem}": json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((Path(__file__).parents[2] / "bundles").glob("*/configs/*.json"))
    if path.stem != "metadata"
}
BUNDLES = sorted({name.split("/")[0] for name in CONFIGS})
SHARED = ("scheduler", "device", "bundle_root", "seed")


@pytest.mark.parametrize("name", CONFIGS)
def test_targets_resolve_and_take_their_arguments(name):
    for part in components(CONFIGS[name]):
        target = part["_target_"]
        assert re.fullmatch(r"(monai|monai_diffens|torch|ignite)(\.\w+){2,}", target)
        found = pydoc.locate(target)
        assert callable(found), target
        given = {key: value for key, value in part.items() if not re.fullmatch(r"_\w+_", key)}
        inspect.signature(found).bind(**given)


@pytest.mark.parametrize("name", CONFIGS)
def test_versions_files_and_overrides_are_checked_first(name):
    config = CONFIGS[name]
    check = "$before_run.check_before_run(@bundle_root)"
    if name.endswith("/inference"):
        # MONAI finds the package that a release zip brings only from `run` on; what is called checks first
        assert config["run"] == ["$inference.run(@bundle_root)"] and "initialize" not in config
    elif "imports" in config or "initialize" in config:  # an overlay adds to a file that has the checks
        assert config["initialize"][0] == check
        imports = config.get("imports") or config["+imports"]
        assert "$import monai_diffens.bundle.before_run as before_run" in imports


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("key", SHARED)
def test_training_and_inference_share(bundle, key):
    """Each file is complete alone, so what they repeat is kept equal here.

    The networks differ until weights of the present recipe ship; tests of each bundle hold in what.
    """
    files = [CONFIGS[name] for name in (f"{bundle}/inference", f"{bundle}/train") if name in CONFIGS]
    assert all(config[key] == files[0][key] for config in files)

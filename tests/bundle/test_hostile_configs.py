"""Configurations that would run code: MONAI runs them, and the allow-list refuses each."""

import contextlib
import logging
import shutil
import warnings

import hostile_configs
import monai
import pytest
import torch
from hostile_configs import PROVEN, UNPROVEN, write_case
from monai.bundle import ConfigParser
from monai.bundle.workflows import _apply_logging_file

from monai_diffens.bundle.allow_list import check_configs, findings_in_config
from monai_diffens.messages import BundleRejected


@pytest.fixture
def process_kept(monkeypatch):
    """The root logger, its handlers and what some cases set in other modules are as before afterwards."""
    monkeypatch.setattr(monai.handlers, "from_engine", monai.handlers.from_engine)
    monkeypatch.setattr(torch, "float32", torch.float32)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    names = dict(logging._handlers)
    yield
    for handler in root.handlers:
        if handler not in before:
            handler.close()
    root.handlers[:] = before
    root.setLevel(level)
    logging._handlers.update(names)


def run_in_monai(configs):
    """What a workflow does, to the point where ``run`` has been evaluated."""
    parser = ConfigParser()
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        for path in configs:
            if path.suffix == ".conf":
                _apply_logging_file(str(path))
        parser.read_config([path for path in configs if path.suffix != ".conf"])
        parser.get_parsed_content("run")


@pytest.mark.parametrize("name", PROVEN)
def test_it_would_run_and_is_refused(name, source, tmp_path, process_kept):
    marker = tmp_path / "marker"
    configs = write_case(source, PROVEN[name], marker)
    with pytest.raises(BundleRejected) as caught:
        check_configs(source)
    assert not marker.exists()
    assert "configs/" in str(caught.value) and "\n" not in str(caught.value)
    run_in_monai(configs)
    assert marker.exists(), "this case proves nothing: MONAI does not run it"
    (shutil.rmtree if marker.is_dir() else type(marker).unlink)(marker)


@pytest.mark.parametrize("name", UNPROVEN)
def test_it_is_refused(name, source, tmp_path):
    write_case(source, UNPROVEN[name], tmp_path / "marker")
    with pytest.raises(BundleRejected) as caught:
        check_configs(source)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert not (tmp_path / "marker").exists()


def test_the_corpus_is_large_enough():
    assert len(PROVEN) + len(UNPROVEN) >= 90 and len(hostile_configs.EXPRESSIONS) >= 30


# Places of an expression in another one, and of a component in a configuration: none hides anything.
PLACES = (
    "[%s]",
    "(%s,)",
    "{'a': %s}",
    "{%s}",
    "[*[%s]]",
    "1 if True else %s",
    "%s if False else 1",
    "1 if %s else 2",
    "False and %s",
    "not (%s)",
    "1 < 2 < (%s)",
    "[x for x in [1] if %s]",
    "[x for x in [%s]]",
    "[%s for x in []]",
    "[x for x in [] for y in [%s]]",
    "{x: %s for x in []}",
    "(%s for x in [])",
    "'abc'[%s]",
    "'abc'[:%s]",
    "max(1, %s)",
    "dict(a=%s)",
    "'-'.join(%s)",
    "torch.device(%s)",
    "isinstance(%s, str)",
    "(%s).items",
    "(%s).keys()",
    "1 + (%s)",
    "-(%s)",
)


@pytest.mark.parametrize("place", PLACES)
def test_wherever_an_expression_stands(place):
    assert findings_in_config({"a": "$" + place.replace("%s", "1"), "imports": ["$import torch"]}) == []
    for name, files in hostile_configs.EXPRESSIONS.items():
        config = files["inference.json"]
        text = config["run"].removeprefix("$")
        if ":=" in text or text.startswith("@"):
            text = f"({text})"
        moved = {**config, "run": "$" + place.replace("%s", text)}
        assert findings_in_config(moved), name


@pytest.mark.parametrize(
    "moved",
    [
        lambda config: {"a": config},
        lambda config: {"a": [[config]]},
        lambda config: {"a::b#c": config},
        lambda config: {"+a": [config]},
        lambda config: {"_meta_": {"a": config}},
        lambda config: {"a": {"_target_": "Compose", "_disabled_": True, "transforms": [config]}},
        lambda config: {"a": {"_target_": "Compose", "_requires_": [config]}},
        lambda config: {"imports": [config]},
    ],
)
def test_wherever_a_component_stands(moved):
    for name, files in hostile_configs.COMPONENTS.items():
        for file, config in files.items():
            found = findings_in_config(config)
            assert len(findings_in_config(moved(config))) >= len(found), (name, file)

"""What the configurations may run; nothing in these tests is ever evaluated."""

import json
from pathlib import Path

import pytest

from monai_diffens.bundle.allow_list import (
    check_configs,
    findings_in_config,
    findings_in_logging,
    is_allowed_target,
)
from monai_diffens.messages import BundleRejected

IMPORTS = [
    "$import torch",
    "$import monai_diffens.inferers.settings as settings",
    "$from monai_diffens.data.training_volumes import training_cases",
]


@pytest.mark.parametrize(
    "expression",
    [
        "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "$settings.map_names(@table > 1, [])",
        "$training_cases(@dataset_dir, 'train', min_sharpness=@limits#sharp)",
        "$[a + b for a, b in zip(@x, @y) if a for c in [a]]",
        "$setattr(torch.backends.cudnn, 'benchmark', False)",
        "$isinstance(@a, (int, float))",
        "$torch.float32",
        "$torch.compile(@a, dynamic=False)",
        "$@bundle_root + '/train/' + '_'.join([@planes] if isinstance(@planes, str) else @planes)",
        "$[p for p in @network.parameters() if p.requires_grad]",
        "$@a::b::0 and @network.bank.requires_grad_(False)",
        "$not @a or -@b < 3",
        "@a",
        "mail@example.org",
        "100 %",
    ],
)
def test_accepted(expression):
    assert findings_in_config({"imports": IMPORTS, "a": [expression]}) == []


@pytest.mark.parametrize(
    "expression",
    [
        "$__import__('os').system('true')",
        "$eval('1')",
        "$open('/etc/passwd')",
        "$getattr(@a, 'b')",
        "$torch.load('x.pt')",
        "$torch.hub.load('a', 'b')",
        "$torch",
        "$maps",
        "$settings.map_names",  # the function, to be called by another
        "$training_cases",
        "$len",
        "$settings.Path('x').unlink()",
        "$monai_diffens.inferers.settings.map_names(True, [])",  # not under the name it was imported as
        "$settings.map_names(*@a, **@b)",
        "$torch.compile(@a, options={'cpp.cxx': ['docs/evil.sh']})",
        "$torch.compile(@a, backend='evil')",
        "$torch.compile",
        "$settings.map_names(True, [])(1)",
        "$isinstance(@a, @b)",
        "$setattr(torch.backends.cudnn, 'enabled', False)",
        "$setattr(torch.backends.cudnn, @name, False)",
        "$setattr(torch, 'load', @a)",
        "$[len for len in @a]",
        "$[torch for torch in @a]",
        "$[x for x in @a] + [x]",
        "$[y for x in y for y in @a]",
        "$[0 for x.y in @a]",
        "$[0 for x[0] in @a]",
        "$[0 for [x, *y] in @a]",
        "$[await x for x in @a]",
        "$[x async for x in @a]",
        "$(yield 1)",
        "$b'bytes'",
        "$...",
        "$1j",
        "$@a @ @b",
        "$@",
        "$@a::",
        "$@imports::0",
        "$",
        "$ ",
        "$@a.__class__",
        "$@a.b.__subclasses__()[0]",
        "$@a.tofile('x')",
        "$[x.tofile('x') for x in @a]",
        "$[x._private for x in @a]",
        "$'{0.__class__}'.format(@a)",
        "$f'{@a}'",
        "$(lambda: 1)()",
        "$(x := 1)",
        "$10 ** 10 ** 10",
        "$__local_refs.clear()",
        "$__builtins__",
        "$@##a + 1",
        "@##a",
        "$import torch",  # not among the imports
        "@imports",
        "@imports#0",
        "@",
        "$not python",
        "%other.json::a",
    ],
)
def test_refused(expression):
    assert findings_in_config({"imports": IMPORTS, "a": [expression]}) == [f"a#0: {expression}"]


@pytest.mark.parametrize(
    "line",
    [
        "$import subprocess",
        "$import os as len",
        "$import os as _x",
        "$import os as __builtins__",
        "$import torch, os",
        "$import torch; torch.load('x')",
        "$import torch\nimport subprocess",
        "$import monai as torch",  # another meaning for a name in use
        "$from monai_diffens.bundle.before_run import Path",
        "$from os import system",
        "$from os.path import *",
        "$from . import x",
        "$import monai_diffens.nowhere as x",
        "$import monai_diffens.demo as demo",
    ],
)
def test_refused_imports(line):
    assert findings_in_config({"imports": [line]}) == [f"imports#0: {line}"]
    assert findings_in_config({"+imports": ["$import torch", line]}) == [f"imports#1: {line}"]


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.run",
        "torch.load",
        "monai.transforms.Lambdad",
        "Lambdad",
        "ConfigWorkflow",
        "AdamW",  # short names are MONAI's
        " LoadImaged",
        "monai.transforms.LoadImaged#x",
        "monai_diffens.bundle.export.export_sampler",  # evaluates the configurations of any folder
        "monai_diffens.bundle.archive.fetch",
        "monai_diffens.bundle.archive.pack",
        "monai_diffens.bundle.folder.write_manifest",
        "monai_diffens.__main__.main",
        "torch.compile",
        "monai_diffens.demo.run",
        "monai_diffens.files.os.mkdir",  # the package imports it
        "monai_diffens.demo.Path",
        "monai_diffens.cli._version",
        "monai_diffens.demo",
        "@a",
        "$torch.device",
        ["os.system"],
        {"_target_": "os.system"},
        None,
    ],
    ids=str,
)
def test_refused_targets(target):
    findings = findings_in_config({"a": {"b": [{"_target_": target}]}})
    assert findings and all(finding.startswith("a#b#0#_target_") for finding in findings)


def test_accepted_targets():
    assert is_allowed_target("monai.transforms.Compose")
    assert is_allowed_target("Compose")
    assert is_allowed_target("monai_diffens.networks.diff_ensembler.DiffEnsembler")


@pytest.mark.parametrize(
    "config",
    [
        {"a": {"_target_": "monai.data.Dataset", "_mode_": "debug"}},
        {"a": {"_target_": "monai.data.Dataset", "_mode_": "$1"}},
        {"a": {"_mode_": "callable"}},
        {"a": {" _mode_ ": "default"}},
        {"a": {"__init__": 1}},
        {"a": {"b#c": 1}},
        {"a::_mode_": "callable"},
        {"a#b::reader::0": "os.system"},
        {"a": {"reader": "nibabelreader, os.system"}},
        {"a": {"writer": "os.system"}},
        {"a": {"reader": {"_target_": "Compose"}}},
        {"a": {"_mode_": {"default": 1}}},
        {"a": {"pickle_module": "pickle"}},
        {"a": {"compile_kwargs": "@b"}},
        {"a": {"allow_pickle": 0}},
        {"a": {"weights_only": 1}},
        {"a": {"weights_only": None}},
        {"a": {"allow_pickle": True}},
        {"a": {"weights_only": False}},
        {"inputs": {"image": {"spatial_shape": ["16*n", "().__class__"]}}},
        {"a": {"_requires_": "$exit()"}},
        {"a": {"_disabled_": "$exit()"}},
    ],
    ids=str,
)
def test_refused_switches(config):
    assert len(findings_in_config(config)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "class=FileHandler",
        "class = handlers.SocketHandler",
        "class=__import__('os').system('true')",
        "args=('/tmp/x',)",
        "args=(__import__('os').system('true'),)",
        "kwargs={'filename': 'x'}",
        "args\x0b=('x',)",
        "ARGS : ('x',)",
        "defaults={}",
        "style={",
        "unknown=1",
        "class=StreamHandler\n  , x",
    ],
)
def test_logging_goes_to_the_screen_only(line):
    assert len(findings_in_logging(f"[handler_console]\n{line}\nformatter=line")) == 1


def refusal(root: Path) -> str:
    with pytest.raises(BundleRejected) as caught:
        check_configs(root)
    line = str(caught.value)
    assert "\n" not in line and line.startswith(f"{root.name}: ")
    return line


def test_the_line_names_file_and_place(source):
    check_configs(source)
    config = {"a": {"b": [1, {"_target_": "os.system", "command": "true"}]}}
    (source / "configs" / "train.json").write_text(json.dumps(config))
    assert "1 parts of its configs" in refusal(source)
    assert "configs/train.json, a#b#1#_target_: os.system" in refusal(source)


def test_an_overlay_uses_the_imports_of_the_file_below(source):
    overlay = source / "configs" / "more.json"
    overlay.write_text(
        json.dumps({"device": "$torch.device('cpu')", "a": "$before_run.check_before_run(@b)"})
    )
    check_configs(source)
    overlay.write_text(json.dumps({"+imports": ["$import monai_diffens.inferers.settings as before_run"]}))
    assert "configs/more.json, imports#0: $import" in refusal(source)  # a name has one meaning


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("more.toml", "a = 1", "configs/more.toml, a file that is neither .json, .yaml nor .conf"),
        ("more.JSON", "{}", "configs/more.JSON, a file that is neither"),
        ("twice.json", '{"a": 1, "a": 2}', "configs/twice.json is not a readable configuration (a key that"),
        ("list.json", "[1]", "a configuration that is not a dictionary"),
        ("two.conf", "[a]\n[a]\n", "configs/two.conf is not a readable configuration (DuplicateSection"),
        ("../docs/more.json", '{"run": "$exit()"}', "docs/more.json, run: $exit()"),
        ("../docs/more.JSON", '{"run": "$exit()"}', "docs/more.JSON, run: $exit()"),
        ("../more.yml", "run: $exit()", "more.yml, run: $exit()"),
        ("../docs/more.conf", "[a]\nargs=exit()", "docs/more.conf, [a] args=exit()"),
        ("deep/er.py", "x", "configs/deep/er.py, a file that is neither"),
        ("cut.json", '{"a":', "configs/cut.json is not a readable configuration (JSONDecodeError)"),
        ("deep.json", "[" * 10**5, "configs/deep.json is not a readable configuration (RecursionError)"),
        ("latin.json", b'"\xe9"', "configs/latin.json is not a readable configuration (UnicodeDecodeError)"),
        ("metadata.json", '{"name": "$exit()"}', "configs/metadata.json, name: $exit()"),
    ],
)
def test_other_files_among_the_configs(source, name, content, words):
    path = source / "configs" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert words in refusal(source)

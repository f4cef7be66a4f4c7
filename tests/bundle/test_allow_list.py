"""What the configurations may run; nothing in these tests is ever evaluated."""

import json
from pathlib import Path

import pytest

from monai_diffens.bundle.allow_list import (
    check_configs,
    findings_in_config,
    findings_in_logging,
    is_allowed,
)
from monai_diffens.bundle.manifest import BundleRejected

BUNDLES = sorted(path for path in (Path(__file__).parents[2] / "bundles").iterdir() if path.is_dir())
IMPORTS = ["$import torch", "$import monai_diffens.demo.demo as demo", "$from monai_diffens.data import bids"]


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_shipped_bundles_are_on_it(bundle):
    check_configs(bundle)  # add what it names to monai_diffens/bundle/allow_list.json, if it belongs there


@pytest.mark.parametrize(
    "expression",
    [
        "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "$demo.format_table(@table)",
        "$bids.sharp_volumes(@dataset_dir, 'train', min_sharpness=@limits#sharp)",
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
        "$demo",
        "$demo.subprocess.run(['true'])",
        "$demo.Path('x').unlink()",
        "$monai_diffens.demo.demo.format_table(@a)",  # not under the name it was imported as
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
        "$import os",
        "$import torch, os",
        "$import torch; torch.load('x')",
        "$import monai as torch",  # another meaning for a name in use
        "$from monai_diffens.demo.demo import subprocess",
        "$from . import x",
        "$import monai_diffens.nowhere as x",
        "$not python",
        "%other.json::a",
    ],
)
def test_refused(expression):
    assert findings_in_config({"imports": IMPORTS, "a": [expression]}) == [f"a#0: {expression}"]


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.run",
        "torch.load",
        "monai.transforms.Lambdad",
        "LoadImaged",
        "monai_diffens.demo.demo.subprocess.run",  # the package imports it
        "monai_diffens.demo.demo.Path",
        "monai_diffens.demo.demo._parse",
        "monai_diffens.demo.demo",
        "@a",
        "$torch.device",
        ["os.system"],
        {"_target_": "os.system"},
        None,
    ],
    ids=str,
)
def test_refused_targets(target):
    assert len(findings_in_config({"a": {"b": [{"_target_": target}]}})) == 1


def test_accepted_targets():
    assert is_allowed("monai.transforms.Compose")
    assert is_allowed("monai_diffens.networks.diff_ensembler.DiffEnsembler")


@pytest.mark.parametrize(
    "config",
    [
        {"a": {"_target_": "monai.data.Dataset", "_mode_": "debug"}},
        {"a": {"_target_": "monai.data.Dataset", "_mode_": "$1"}},
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
    ],
)
def test_logging_goes_to_the_screen_only(line):
    assert findings_in_logging(f"[handler_console]\n{line}\nformatter=line") == [line]


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
    overlay.write_text(json.dumps({"device": "$torch.device('cpu')", "a": "$bundle_check.verify(@b)"}))
    check_configs(source)
    overlay.write_text(json.dumps({"+imports": ["$import monai_diffens.bundle.archive as bundle_check"]}))
    assert "configs/more.json, +imports#0: $import" in refusal(source)  # a name has one meaning


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("more.yaml", "a: 1", "configs/more.yaml, a file that is neither .json nor .conf"),
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

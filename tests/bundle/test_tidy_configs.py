"""What nothing is wrong with is accepted: our configurations, and some in the style of MONAI's zoo."""

import ast
import json
import pydoc
import shutil
from pathlib import Path

import pytest
from monai.bundle import ComponentLocator
from tidy_configs import TIDY

from monai_diffens.bundle.allow_list import ALLOWED, SHORT
from monai_diffens.bundle.archive import verify
from monai_diffens.bundle.folder import PACKAGE_DIR, bundle_files, write_manifest

BUNDLES = sorted(path for path in (Path(__file__).parents[2] / "bundles").iterdir() if path.is_dir())
LISTED = sorted(ALLOWED["targets"] | ALLOWED["functions"] | ALLOWED["values"])
# What turns text into code, or starts programs; none of our listed modules has a use for it.
POWERFUL = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "import_module",
    "locate",
    "ConfigParser",
    "ConfigWorkflow",
}
POWERFUL |= {"subprocess", "system", "popen", "Unpickler", "optional_import", "breakpoint"}


@pytest.mark.parametrize("name", TIDY)
def test_verified(name, source):
    (source / "configs" / "inference.json").unlink()
    for file, content in TIDY[name].items():
        text = content if isinstance(content, str) else json.dumps(content, indent=1)
        (source / "configs" / file).write_text(text)
    write_manifest(source, list(bundle_files(source)))
    assert verify(source) == len(list(bundle_files(source)))


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_ours_are_verified(bundle, source):
    shutil.rmtree(source / "configs")
    shutil.copytree(bundle / "configs", source / "configs")
    write_manifest(source, list(bundle_files(source)))
    # what a configuration names new: add it to bundle/allow_list.json if no argument of it can run anything
    verify(source)


@pytest.mark.parametrize("name", LISTED)
def test_what_is_listed_is_there(name):
    assert pydoc.locate(name) is not None


def test_short_names_are_found_where_they_are_listed():
    for name in LISTED:
        if name.startswith("monai_diffens."):  # all of them loaded: none may have a name of MONAI's
            pydoc.locate(name)
    locator = ComponentLocator()
    for name in SHORT:
        module = locator.get_component_module_name(name)
        assert isinstance(module, str), f"{name} is in {module}"
        (full,) = [
            target for target in ALLOWED["targets"] if target.endswith(f".{name}") and "diffens" not in target
        ]
        assert getattr(pydoc.locate(module), name) is pydoc.locate(full)


def test_our_listed_modules_turn_no_text_into_code():
    checked = {name.rsplit(".", 1)[0] for name in LISTED if name.startswith("monai_diffens.")}
    checked -= {
        "monai_diffens.bundle.before_run",
        "monai_diffens.inference",
    }  # its files were checked
    assert len(checked) > 20
    for module in checked:
        path = PACKAGE_DIR.parent.joinpath(*module.split(".")).with_suffix(".py")
        used = {
            node.id if isinstance(node, ast.Name) else node.attr
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Name | ast.Attribute)
        }
        assert not used & POWERFUL, module

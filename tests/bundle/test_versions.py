"""Package versions: too old or missing ends with one line, older than tested is only told."""

import json
import logging
import re
from pathlib import Path

import pytest

import monai_diffens
from monai_diffens.bundle import folder
from monai_diffens.bundle.before_run import check_before_run
from monai_diffens.bundle.folder import LEAST, check_versions
from monai_diffens.messages import BundleRejected

ROOT = Path(__file__).parents[2]
TESTED = {"monai": "1.6.1", "torch": "2.13.0+cpu", "numpy": "2.4.6", "scipy": "1.17.1"}


def require(root: Path, **changes: object) -> Path:
    path = root / "configs" / "metadata.json"
    content = json.loads(path.read_text())
    content["required_packages_version"] |= changes.pop("packages", {})
    path.write_text(json.dumps(content | changes))
    return root


def test_the_least_versions_are_those_of_the_package():
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("dependencies = [") :].split("\n]")[0]
    assert dict(re.findall(r'"([\w-]+)>=([\d.]+)"', block)).items() >= LEAST.items()


@pytest.mark.parametrize("bundle", sorted((ROOT / "bundles").glob("*/configs")), ids=lambda p: p.parent.name)
def test_shipped_bundles_run_with_what_is_installed(bundle):
    check_versions(bundle.parent)


def test_as_tested_nothing_is_said(source, caplog, monkeypatch):
    monkeypatch.setattr(folder.installed, "version", TESTED.__getitem__)
    with caplog.at_level(logging.INFO):
        check_versions(require(source, packages={"scipy": "1.17.1"}))
    assert caplog.text == ""


def test_an_older_version_is_told(source, caplog, monkeypatch):
    found = TESTED | {"monai": "1.7.0", "scipy": "1.15.3"}
    monkeypatch.setattr(folder.installed, "version", found.__getitem__)
    with caplog.at_level(logging.INFO):
        check_versions(require(source, packages={"scipy": "1.17.1"}))
    line = "tiny_sr: tested with scipy 1.17.1; found scipy 1.15.3"
    assert caplog.messages == [line]


@pytest.mark.parametrize(
    ("packages", "line"),
    [
        (
            {"no-such-package": "1.0"},
            "tiny_sr: needs no-such-package 1.0 or later, which is not installed: "
            "pip install 'no-such-package>=1.0'",
        ),
        (
            {"monai-diffens": "99.0"},
            f"tiny_sr: needs monai-diffens 99.0 or later, found {monai_diffens.__version__}: "
            "pip install 'monai-diffens>=99.0'",
        ),
    ],
)
def test_a_run_stops_with_one_line(source, packages, line):
    with pytest.raises(SystemExit) as caught:
        check_before_run(require(source, packages=packages))
    assert caught.value.code == line


def test_an_old_torch_is_refused(source, monkeypatch):
    monkeypatch.setattr(folder.installed, "version", (TESTED | {"torch": "2.9.1"}).__getitem__)
    with pytest.raises(BundleRejected, match=r"needs torch 2\.10 or later, found 2\.9\.1"):
        check_versions(require(source))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 1}'])
def test_damaged_metadata(source, content):
    (source / "configs" / "metadata.json").write_text(content)
    with pytest.raises(SystemExit, match=r"tiny_sr: metadata\.json is not a readable configuration"):
        check_before_run(source)


def test_where_the_folder_of_the_bundle_is_not_known(tmp_path, monkeypatch):
    check_before_run(tmp_path)
    monkeypatch.setattr(folder.installed, "version", (TESTED | {"monai": "1.5.0"}).__getitem__)
    with pytest.raises(SystemExit, match=r"needs monai 1\.6\.1 or later, found 1\.5\.0"):
        check_before_run(tmp_path)

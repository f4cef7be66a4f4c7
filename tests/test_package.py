"""The package as installed, and the fixtures the other tests stand on."""

import json
import re
import zipfile
from importlib.metadata import version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from setuptools import find_packages

import monai_diffens
from monai_diffens.bundle.archive import pack


def test_installed_version_is_the_one_in_the_source():
    assert version("monai-diffens") == monai_diffens.__version__


def test_every_folder_with_code_is_a_package_so_the_wheel_holds_it():
    root = Path(monai_diffens.__file__).parent
    assert {p.parent for p in root.rglob("*.py")} == {p.parent for p in root.rglob("__init__.py")}


def test_what_is_cited_is_this_version_and_what_hosts_run_is_the_ci():
    root = Path(monai_diffens.__file__).parents[1]
    cited = yaml.safe_load((root / "CITATION.cff").read_text())
    assert cited["version"] == monai_diffens.__version__ and cited["cff-version"] == "1.2.0"
    workflow = yaml.safe_load((root / ".github" / "workflows" / "ci.yml").read_text())
    assert workflow["jobs"]["checks"]["steps"][-1] == {"run": ".ci/run"}
    assert yaml.safe_load((root / ".pre-commit-config.yaml").read_text())["repos"]


def test_one_version_everywhere():
    root, version_ = Path(monai_diffens.__file__).parents[1], monai_diffens.__version__
    cited = yaml.safe_load((root / "CITATION.cff").read_text())["version"]
    bundled = {
        json.loads(path.read_text())["version"] for path in root.glob("bundles/*/configs/metadata.json")
    }
    newest = re.findall(r"^## \[(\d.+?)\]", (root / "CHANGELOG.md").read_text(), re.M)[0]
    assert (cited, bundled, newest) == (version_, {version_}, version_)


def test_release_notes_are_the_changelogs_section():
    path = Path(monai_diffens.__file__).parents[1] / ".ci" / "release.py"
    release = module_from_spec(spec := spec_from_file_location("release", path))
    spec.loader.exec_module(release)
    changelog = "# Changelog\n\n## [0.10.0]\n\n- later\n\n## [0.1.0]\n\n- this\n\n## [0.0.9]\n\n- earlier\n"
    notes = release.release_notes(changelog, "0.1.0")
    assert "- this" in notes and not {"later", "earlier"} & set(re.findall(r"\w+", notes))
    with pytest.raises(SystemExit):
        release.release_notes(changelog, "0.1.1")


def test_the_wheel_holds_no_research():
    root = Path(monai_diffens.__file__).parents[1]
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    settings = tomllib.loads((root / "pyproject.toml").read_text())
    found = find_packages(str(root), include=settings["tool"]["setuptools"]["packages"]["find"]["include"])
    assert "monai_diffens.networks" in found and {name.split(".")[0] for name in found} == {"monai_diffens"}


@pytest.mark.parametrize("bundle", ["diffensembler_sr", "diffensembler_translate"])
def test_release_zips_hold_no_research(bundle, tmp_path):
    root = Path(monai_diffens.__file__).parents[1]
    with zipfile.ZipFile(pack(root / "bundles" / bundle, tmp_path)) as archive:
        names = [name.removeprefix(f"{bundle}/") for name in archive.namelist()]
        configs = [archive.read(f"{bundle}/{name}").decode() for name in names if name.startswith("configs/")]
    assert [name for name in names if name.endswith(".pt")] == ["models/model.pt"]
    assert "monai_diffens/__init__.py" in names and not [n for n in names if n.startswith("research/")]
    assert not [config for config in configs if re.search(r"\bresearch\.", config)]


def test_nothing_in_the_package_imports_research():
    for path in Path(monai_diffens.__file__).parent.rglob("*.py"):
        assert not re.search(r"^\s*(from|import) research\b", path.read_text(encoding="utf-8"), re.M), path


def test_crop_lies_where_it_lay_in_the_scan(crop_path, data_dir):
    crop = nib.load(crop_path)
    scan = nib.load(data_dir / "sub-upenn01" / "anat" / "sub-upenn01_T1w.nii.gz")
    corner = np.linalg.solve(scan.affine, crop.affine[:, 3])[:3].round().astype(int)
    window = tuple(slice(c, c + side) for c, side in zip(corner, crop.shape, strict=True))
    assert crop.shape == (48, 56, 40)
    np.testing.assert_array_equal(crop.get_fdata(), scan.get_fdata()[window])

"""An unpacked bundle, before its first use and in every run."""

import json
import shutil
from pathlib import Path

import pytest

from monai_diffens.bundle.archive import pack, unpack, verify
from monai_diffens.bundle.before_run import check_before_run
from monai_diffens.bundle.folder import (
    MANIFEST,
    PACKAGE_DIR,
    package_files,
    write_manifest,
)
from monai_diffens.messages import BundleRejected


@pytest.fixture
def root(source, tmp_path) -> Path:
    """An unpacked release."""
    return unpack(pack(source, tmp_path / "dist"), tmp_path / "bundles")


def seal(root: Path) -> None:
    """Write a manifest that fits, as someone with bad intent would."""
    write_manifest(
        root, [p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file() and p.name != MANIFEST]
    )


def line_of(function, root: Path) -> str:
    with pytest.raises((BundleRejected, SystemExit)) as caught:
        function(root)
    line = str(caught.value)
    assert line and "\n" not in line
    return line


def test_a_release_passes(root):
    assert verify(root) == len((root / MANIFEST).read_text().splitlines())
    check_before_run(root)


def test_a_bundle_under_development_needs_no_manifest(source):
    check_before_run(source)
    assert "manifest.sha256 is missing" in line_of(verify, source)


@pytest.mark.parametrize("name", ["configs/inference.json", "models/model.pt", "monai_diffens/__init__.py"])
def test_a_changed_or_missing_file_stops_the_run(root, name):
    path = root / name
    path.write_bytes(path.read_bytes() + b" ")
    for function in (verify, check_before_run):
        assert f"1 files are not as released, first: {name} (changed)" in line_of(function, root)
    path.unlink()
    for function in (verify, check_before_run):
        assert f"first: {name} (missing)" in line_of(function, root)


def test_what_runs_and_downloads_leave_is_no_matter(root):
    for name in (
        "output/scan_sr.nii.gz",
        "train/fusion/model.pt",
        ".cache/huggingface/download/LICENSE.metadata",
    ):
        (root / name).parent.mkdir(parents=True)
        (root / name).touch()
    verify(root)


@pytest.mark.parametrize(
    "name",
    [
        "torch.py",
        "scripts/__init__.py",
        "configs/more.json",
        "monai_diffens/networks/__pycache__/slicing.cpython-311.pyc",
    ],
)
def test_files_that_could_run_in_place_of_the_released_ones(root, name):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).touch()
    assert f"1 files are not in its manifest, first: {name}" in line_of(verify, root)


def test_what_a_user_puts_beside_a_bundle_stops_no_run(root, tmp_path):
    (root / "data").symlink_to(tmp_path)
    (root / "cases.json").write_text('[{"image": "M\u00fcller.nii.gz"}]', encoding="utf-8")
    check_before_run(root)


def test_a_link_among_the_configs_stops_a_run(root, tmp_path):
    (root / "configs" / "more.json").symlink_to(root / "configs" / "inference.json")
    assert "configs/more.json is not a readable configuration (a link" in line_of(check_before_run, root)


def test_links(root, tmp_path):
    (root / "docs" / "more").symlink_to(tmp_path)
    assert "docs/more is a link or a special file" in line_of(verify, root)


def test_a_config_that_runs_something_else(root):
    path = root / "configs" / "inference.json"
    config = json.loads(path.read_text())
    config["device"] = "$__import__('os').mkdir('sprung')"
    path.write_text(json.dumps(config))
    seal(root)
    for function in (verify, check_before_run):
        assert "1 parts of its configs are not on the allow-list" in line_of(function, root)
    assert not Path("sprung").exists()


def test_code_that_is_not_this_package(root):
    path = root / "monai_diffens" / "bundle" / "folder.py"
    path.write_text(path.read_text() + "\n# more\n")
    seal(root)
    assert "its copy of monai_diffens is not this one (1 files" in line_of(verify, root)
    verify(root, code_is_trusted=True)  # as its published digest says
    # in a run, another copy was imported than the bundle's own
    assert "it brings its own monai_diffens, but another one was imported first" in line_of(
        check_before_run, root
    )


def test_code_beside_the_package(root):
    (root / "torch.py").write_text("")
    seal(root)
    assert "is not this one (1 files, first: torch.py)" in line_of(verify, root)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "x",
        "0" * 64 + "  ../escaped",
        "0" * 64 + "  /etc/passwd",
        "0" * 64 + " LICENSE",
        "0" * 63 + "  LICENSE",
    ],
)
def test_a_damaged_manifest(root, line):
    path = root / MANIFEST
    path.write_text(path.read_text() + line + "\n")
    for function in (verify, check_before_run):
        assert "its manifest is damaged at" in line_of(function, root)


def test_package_files_are_those_of_the_package():
    files = package_files()
    assert files["monai_diffens/bundle/allow_list.json"] == PACKAGE_DIR / "bundle" / "allow_list.json"
    assert not [name for name in files if "__pycache__" in name]


def test_no_name_is_too_long_for_one_line(root):
    shutil.copy(root / "LICENSE", root / ("x" * 200))
    assert len(line_of(verify, root)) < 400

"""What pages are made of travels with the package: in its wheel and in the archives of bundles."""

from pathlib import Path

import pytest

from monai_diffens.bundle.folder import package_files
from monai_diffens.report import page

ROOT = Path(__file__).parents[2]
FOLDER = "monai_diffens/report"


def needed() -> set[str]:
    names = {f"{FOLDER}/{path.relative_to(page.FOLDER).as_posix()}" for path in page.FOLDER.glob("*/*.*")}
    return {name for name in names if "__pycache__" not in name}


def test_there_are_templates_the_viewer_and_its_licences():
    names = {Path(name).name for name in needed()}
    assert {"case.html", "index.html", "style.css", "viewer.js", page.VIEWER.name, "LICENSES.txt"} <= names


def test_archives_hold_them():
    assert needed() <= set(package_files())


def test_the_wheel_holds_them(monkeypatch):
    setuptools = pytest.importorskip("setuptools")
    read = pytest.importorskip("setuptools.config.pyprojecttoml")
    monkeypatch.chdir(ROOT)
    build = read.apply_configuration(setuptools.Distribution(), "pyproject.toml").get_command_obj("build_py")
    build.ensure_finalized()
    build.manifest_files = {}  # of version control; nothing is asked of it here
    found = build.find_data_files("monai_diffens.report", FOLDER)
    assert needed() <= {Path(file).as_posix() for file in found}


def test_the_viewer_is_the_one_whose_licences_are_told():
    text = (page.VIEWER.parent / "LICENSES.txt").read_text(encoding="utf-8")
    assert page.VIEWER.name in text and text.count("\n== ") == 8
    assert page.VIEWER.stat().st_size < 3e6

"""``make release``: all that belongs to a release, built from what is committed, and tested, in one folder.

The folder holds the sdist, the wheel that was built from it, a zip of each bundle, an SBOM of what the wheel
requires (CycloneDX), release notes, and the SHA-256 of each file. Wheel and zips are used in empty
environments (``tests/wheel_test.py``); nothing is fetched.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import wheel_test  # noqa: E402
from linked_environment import make_linked_environment  # noqa: E402

import monai_diffens  # noqa: E402
from monai_diffens.bundle.archive import pack, write_digests  # noqa: E402

SBOM, NOTES = "sbom.cdx.json", "RELEASE_NOTES.md"
CORE = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}


def main() -> None:
    """Build, test and describe a release; SystemExit with the first step that fails."""
    parser = argparse.ArgumentParser(description="Build and test a release.")
    parser.add_argument("--output_dir", type=Path, default=ROOT / "release")
    out = parser.parse_args().output_dir.resolve()
    if wheel_test.run("git", "status", "--porcelain", "--untracked-files=no", cwd=ROOT).strip():
        raise SystemExit("there are changes that are not committed; commit them first")
    if out.exists() and any(out.iterdir()):
        raise SystemExit(f"{out.name}: not empty; remove it, or choose another --output_dir")
    notes = release_notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), monai_diffens.__version__)
    # archives carry the time of the commit, so that they are the same whenever they are built
    os.environ["SOURCE_DATE_EPOCH"] = wheel_test.run("git", "log", "-1", "--format=%ct", cwd=ROOT).strip()
    with tempfile.TemporaryDirectory() as folder:
        base, made = Path(folder), Path(folder) / "release"
        made.mkdir()
        wheel, sdist = build(base / "source", made)
        wheel_test.check_content(wheel)
        python = wheel_test.install(wheel, base / "env")
        wheel_test.check_use(python, base / "empty")
        scan = base / "empty" / "demo" / "thick_5mm.nii.gz"
        bundles = [path.parents[1] for path in sorted(ROOT.glob("bundles/*/models/model.pt"))]
        zips = [pack(bundle, made) for bundle in bundles]
        for archive in zips:
            check_zip(archive, scan, base / archive.stem)
        sbom = write_sbom(python, base / "source", made)
        (made / NOTES).write_text(notes, encoding="utf-8")
        write_digests([sdist, wheel, *zips, sbom, made / NOTES])
        shutil.copytree(made, out, dirs_exist_ok=True)
    for path in sorted(out.iterdir()):
        print(f"{path.stat().st_size / 1e6:7.2f} MB  {path.name}")
    print(f"release {monai_diffens.__version__}: all held; it lies in {out}")


def build(source: Path, made: Path) -> tuple[Path, Path]:
    """Wheel and sdist; the wheel is built from the sdist, so that one test serves both."""
    wheel_test.copy_source(source)
    wheel_test.run(sys.executable, "-m", "build", "--no-isolation", "--outdir", made, source)
    (wheel,), (sdist,) = made.glob("*.whl"), made.glob("*.tar.gz")
    return wheel, sdist


def check_zip(archive: Path, scan: Path, folder: Path) -> None:
    """Unpack a bundle where its ``metadata.json``'s packages are installed, and nothing else, and run it."""
    shutil.unpack_archive(archive, folder)
    (root,) = folder.iterdir()
    asked = json.loads((root / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert asked["version"] == monai_diffens.__version__, f"{archive.name}: metadata.json has another version"
    needed = [*CORE, *asked["required_packages_version"]]
    python = make_linked_environment(folder / "env", [name for name in needed if name != "monai-diffens"])
    case = folder / "cases" / "sub-1"
    case.mkdir(parents=True)
    for contrast in ("T1w", "FLAIR"):
        shutil.copy(scan, case / f"sub-1_{contrast}.nii.gz")
    given = case / "sub-1_T1w.nii.gz" if root.name.endswith("_sr") else folder / "cases"
    command = (python, "-m", "monai.bundle", "run", "inference", "--bundle_root", root)
    config = root / "configs" / "inference.json"
    # contrasts that lie on each other: registration is an extra
    options = () if root.name.endswith("_sr") else ("--register", "never")
    words = ("--config_file", config, "--input", given, "--output_dir", folder / "out", *options)
    wheel_test.run(*command, *words, cwd=folder)
    results = sorted(path.name for path in (folder / "out").glob("*.nii.gz"))
    assert len(results) == 1, f"{archive.name}: {results}"
    print(f"{archive.name}: ran alone, {results[0]}")


def write_sbom(python: Path, source: Path, made: Path) -> Path:
    """The packages of an environment that holds the wheel and what it requires, as CycloneDX JSON."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    for file in python.parents[1].glob("lib/*/site-packages/monai_diffens-*/direct_url.json"):
        file.unlink()  # the folder that the wheel was installed from
    path = made / SBOM
    options = ("--pyproject", source / "pyproject.toml", "--output-reproducible", "--of", "JSON")
    tool = (sys.executable, "-m", "cyclonedx_py", "environment")
    wheel_test.run(*tool, *options, "-o", path, python)
    content = json.loads(path.read_text(encoding="utf-8"))
    content["metadata"]["component"]["version"] = monai_diffens.__version__  # dynamic in pyproject.toml
    (viewer,) = (ROOT / "monai_diffens").rglob("niivue-*.js")  # inside of the wheel
    content["components"].append(
        {
            "type": "library",
            "bom-ref": "niivue",
            "name": "@niivue/niivue",
            "version": viewer.name.removeprefix("niivue-").removesuffix(".umd.js"),
            "licenses": [{"license": {"id": "BSD-2-Clause"}}],
        }
    )
    text = json.dumps(content, indent=2) + "\n"
    if wrong := JsonStrictValidator(SchemaVersion.from_version(content["specVersion"])).validate_str(text):
        raise SystemExit(f"{SBOM}: {wrong}")
    path.write_text(text, encoding="utf-8")
    print(f"{SBOM}: {len(content['components'])} packages")
    return path


def release_notes(changelog: str, version: str) -> str:
    """What the changelog says of a version, how to install it and how to check it.

    Raises:
        SystemExit: the changelog has no such version.
    """
    found = re.search(rf"^## \[?{re.escape(version)}\]?[^\n]*\n(.*?)(?=^## |\Z)", changelog, re.M | re.S)
    if found is None:
        raise SystemExit(f"CHANGELOG.md has no section {version}")
    return (
        f"# monai-diffens {version}\n\n"
        "Research use only. Not a medical device; not for diagnosis or treatment.\n\n"
        "    sha256sum -c SHA256SUMS\n"
        f"    pip install monai_diffens-{version}-py3-none-any.whl\n"
        "    diffens demo\n\n"
        f"{found[1].strip()}\n"
    )


if __name__ == "__main__":
    main()

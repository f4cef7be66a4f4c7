"""Versions of the packages a bundle needs; MONAI reads them from metadata.json but enforces none."""

from __future__ import annotations

import json
import logging
from importlib import metadata as installed
from pathlib import Path

from monai.utils import version_leq

import monai_diffens
from monai_diffens.bundle.manifest import BundleRejected
from monai_diffens.messages import say

log = logging.getLogger("monai_diffens")

# The least that works; metadata.json names what the bundle was tested with. As in pyproject.toml.
LEAST = {
    "einops": "0.7",
    "fire": "0.6",
    "itk": "5.4",
    "monai": "1.6.1",
    "nibabel": "5.3",
    "numpy": "2",
    "pytorch-ignite": "0.5.2",
    "scipy": "1.13",
    "torch": "2.10",
    "tqdm": "4.66",
}
CORE = {"monai_version": "monai", "pytorch_version": "torch", "numpy_version": "numpy"}
OURS = "monai-diffens"
METADATA = "configs/metadata.json"


def read_metadata(root: Path) -> dict:
    """Content of an unpacked bundle's metadata.json; :class:`BundleRejected` when it has none to read."""
    path = root / METADATA
    if not path.is_file():
        raise BundleRejected(say("no_bundle", name=root))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content["version"], str):
            raise TypeError("version")
        return content
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        why = type(error).__name__
        raise BundleRejected(say("bad_config", name=root.name, file="metadata.json", why=why)) from error


def check_versions(root: Path) -> None:
    """Stop where a package that the bundle needs is missing or too old; log which ones are not as tested.

    Where there is no metadata.json (a workflow made in Python may not know its bundle's folder), only MONAI,
    PyTorch and NumPy are looked at.

    Raises:
        BundleRejected: with one line and the remedy.
    """
    content = read_metadata(root) if (root / METADATA).is_file() else {}
    tested = {package: str(content.get(key, LEAST[package])) for key, package in CORE.items()}
    tested |= {package: str(value) for package, value in content.get("required_packages_version", {}).items()}
    other = []
    for package, version in tested.items():
        least = LEAST.get(package, version)
        found = version_of(package)
        if found is None:
            raise BundleRejected(say("missing_package", name=root.name, package=package, least=least))
        if not version_leq(least, found):
            line = say("old_package", name=root.name, package=package, least=least, found=found)
            raise BundleRejected(line)
        if content and found.split("+")[0] != version:
            other.append((f"{package} {version}", f"{package} {found}"))
    if other:
        expected, actual = (", ".join(names) for names in zip(*other, strict=True))
        log.info(say("tested_with", name=root.name, tested=expected, found=actual))


def version_of(package: str) -> str | None:
    """Version of an installed package, None where it is not installed; of this one, what is imported."""
    if package == OURS:
        return monai_diffens.__version__
    try:
        return installed.version(package)
    except installed.PackageNotFoundError:
        return None

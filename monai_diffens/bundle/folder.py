"""The folder of a bundle: where it lies, what it says of itself and needs, and the manifest of its files.

The manifest holds the SHA-256 of every file, in the format of ``sha256sum -c``. Python's own library alone is
imported, so that all this can be read before anything of the bundle is trusted.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata as installed
from pathlib import Path, PurePosixPath
from typing import Any

import monai_diffens
from monai_diffens.files import sha256_of, whole_or_absent
from monai_diffens.messages import BundleRejected, say

log = logging.getLogger("monai_diffens")

BUNDLES = {"sr": "diffensembler_sr", "translate": "diffensembler_translate"}  # task -> name
CONFIG, METADATA, WEIGHTS = "configs/inference.json", "configs/metadata.json", "models/model.pt"
MANIFEST = "manifest.sha256"
PACKAGE, PACKAGE_DIR = "monai_diffens", Path(__file__).resolve().parents[1]

# The least that works; metadata.json names what the bundle was tested with. As in pyproject.toml.
LEAST = {
    "einops": "0.7",
    "fire": "0.6",
    "itk": "5.4",
    "jinja2": "3.1.6",
    "matplotlib": "3.9",
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
# What runs and downloads write into a bundle; nothing in these folders is ever imported or evaluated.
OUTPUT_FOLDERS = ("output", "evaluation", "train", "eval", ".cache/huggingface")

_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")
_UNSAFE = re.compile(r'[<>:"|?*\\]')  # a drive, a stream or a separator somewhere
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # of Windows, in any folder
_LONGEST = 240  # bytes of a part of a name


def bundle_path(task_or_name: str) -> Path:
    """Folder of a bundle, by its task ("sr", "translate") or its name.

    A clone's own ``bundles/`` is taken where the package lies in one, so that what is trained there is used.

    Raises:
        BundleRejected: neither place has it.
    """
    name = BUNDLES.get(task_or_name, task_or_name)
    for folder in (PACKAGE_DIR.parent / "bundles", PACKAGE_DIR / "bundles"):
        if name in BUNDLES.values() and (folder / name / CONFIG).is_file():
            return folder / name
    raise BundleRejected(say("not_installed", name=name, known=", ".join(BUNDLES)))


def read_config(root: Path, file: str = CONFIG) -> dict[str, Any]:
    """Content of a bundle's ``inference.json``, or another JSON file of it, as it stands.

    Raises:
        BundleRejected: it has none that can be read.
    """
    path = root / file
    if not path.is_file():
        raise BundleRejected(say("no_bundle", name=root))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or (file == METADATA and not isinstance(content["version"], str)):
            raise TypeError(file)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        why = type(error).__name__
        raise BundleRejected(say("bad_config", name=root.name, file=path.name, why=why)) from error
    return content


def check_versions(root: Path) -> None:
    """Stop where a package that the bundle needs is missing or too old; log which ones are older than tested.

    Where there is no metadata.json (a workflow made in Python may not know its bundle's folder), only MONAI,
    PyTorch and NumPy are looked at.

    Raises:
        BundleRejected: with one line and the remedy.
    """
    from monai.utils import version_leq

    content = read_config(root, METADATA) if (root / METADATA).is_file() else {}
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
        if content and not version_leq(version, found):  # later ones are what pip installs
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


def is_safe_name(name: str) -> bool:
    """Whether a "/" separated name stays below the folder that it is unpacked into, on every system."""
    return not _UNSAFE.search(name) and name.isprintable() and all(map(_is_safe_part, name.split("/")))


def _is_safe_part(part: str) -> bool:
    # Windows drops a last dot or blank, so that two names would be one; "." and ".." end with a dot too
    dropped = part[-1:] in ("", ".", " ")
    return not dropped and not _DEVICES.fullmatch(part) and len(os.fsencode(part)) <= _LONGEST


def parse_manifest(text: str, name: str) -> dict[str, str]:
    """Read a manifest.

    Args:
        text: content of the manifest.
        name: of the bundle, for the message.

    Returns:
        File name, relative to the bundle's root and "/" separated, to SHA-256.

    Raises:
        BundleRejected: a line is not "<hex>  <name>", or a name is listed twice or leads out of the bundle.
    """
    entries: dict[str, str] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None or not is_safe_name(match[2]) or match[2] in entries:
            raise BundleRejected(say("bad_manifest", name=name, line=line[:80]))
        entries[match[2]] = match[1]
    return entries


def format_manifest(entries: Mapping[str, str]) -> str:
    """Text of a manifest, sorted by name."""
    return "".join(f"{entries[name]}  {name}\n" for name in sorted(entries))


def read_manifest(root: Path) -> dict[str, str]:
    """Read the manifest of an unpacked bundle.

    Raises:
        BundleRejected: there is none, or it is damaged.
    """
    try:
        text = (root / MANIFEST).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleRejected(say("no_manifest", name=root.name)) from error
    return parse_manifest(text, root.name)


def write_manifest(root: Path, names: Iterable[str]) -> Path:
    """Write the manifest of an unpacked bundle over the files ``names``."""
    path = root / MANIFEST
    entries = {name: sha256_of(root / name) for name in names}
    with whole_or_absent(path, shared=True) as file:
        file.write(format_manifest(entries).encode())
    return path


def bundle_files(root: Path) -> Iterator[str]:
    """Names of all files of an unpacked bundle, but of the manifest and of the output folders.

    Raises:
        BundleRejected: something in it is a link, or neither file nor folder.
    """
    for folder, folders, files in os.walk(root):
        here = PurePosixPath(Path(folder).relative_to(root).as_posix())
        for name in sorted(folders + files):
            path = Path(folder) / name
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise BundleRejected(say("not_a_file", name=root.name, file=here / name))
        folders[:] = [name for name in sorted(folders) if str(here / name) not in OUTPUT_FOLDERS]
        yield from (str(here / name) for name in sorted(files) if str(here / name) != MANIFEST)


def differences(
    entries: Mapping[str, str], exists: Callable[[str], bool], digest: Callable[[str], str]
) -> list[str]:
    """Names that are listed but missing or changed, each with the word for it."""
    return [
        f"{name} ({'changed' if exists(name) else 'missing'})"
        for name, wanted in sorted(entries.items())
        if not exists(name) or digest(name) != wanted
    ]


def check_manifest(root: Path) -> dict[str, str]:
    """Compare every listed file of an unpacked bundle with its SHA-256; return the manifest.

    Raises:
        BundleRejected: the manifest is missing, or a file is missing or differs.
    """
    entries = read_manifest(root)
    wrong = differences(entries, lambda name: (root / name).is_file(), lambda name: sha256_of(root / name))
    if wrong:
        raise BundleRejected(say("manifest_differs", name=root.name, count=len(wrong), first=wrong[0]))
    return entries


def package_files(package: Path = PACKAGE_DIR) -> dict[str, Path]:
    """Files of the Python package by the name they have in a release archive."""
    return {
        f"{PACKAGE}/{path.relative_to(package).as_posix()}": path
        for path in sorted(package.rglob("*"))
        if path.is_file()
        and "__pycache__" not in path.parts
        and path.name[0] != "."
        and path.relative_to(package).parts[0] != "bundles"  # a wheel carries them in the package
    }


def foreign_code(entries: Mapping[str, str]) -> list[str]:
    """Package files of a manifest that this copy of the package does not have, or has differently."""
    own = package_files()
    vendored = {name: value for name, value in entries.items() if name.startswith(f"{PACKAGE}/")}
    return differences(vendored, own.__contains__, lambda name: sha256_of(own[name]))

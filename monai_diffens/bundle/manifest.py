"""The manifest of a bundle: the SHA-256 of every file, in the format of ``sha256sum -c``.

Standard library only, so that it can be read before anything else of the bundle is trusted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from monai_diffens.files import sha256_of as sha256_of
from monai_diffens.files import whole_or_absent
from monai_diffens.messages import say

MANIFEST = "manifest.sha256"
PACKAGE = "monai_diffens"
BUNDLES = "bundles"
PACKAGE_DIR = Path(__file__).resolve().parents[1]
# What runs and downloads write into a bundle; nothing in these folders is ever imported or evaluated.
OUTPUT_FOLDERS = ("output", "evaluation", "train", "eval", ".cache/huggingface")

_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")
_UNSAFE = re.compile(r'[<>:"|?*\\]')  # a drive, a stream or a separator somewhere
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # of Windows, in any folder
_LONGEST = 240  # bytes of a part of a name


class BundleRejected(Exception):
    """A bundle that is not used; its text is the line for the user."""


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
        and not {"__pycache__"} & set(path.parts)
        and path.name[0] != "."
        and path.relative_to(package).parts[0] != BUNDLES  # a wheel carries them in the package
    }


def foreign_code(entries: Mapping[str, str]) -> list[str]:
    """Package files of a manifest that this copy of the package does not have, or has differently."""
    own = package_files()
    vendored = {name: value for name, value in entries.items() if name.startswith(f"{PACKAGE}/")}
    return differences(vendored, own.__contains__, lambda name: sha256_of(own[name]))

"""Checks of an unpacked bundle: all of them before its first use, the cheap ones in every run."""

from __future__ import annotations

from pathlib import Path

import monai_diffens
from monai_diffens.bundle.allow_list import check_configs
from monai_diffens.bundle.manifest import (
    MANIFEST,
    PACKAGE,
    PACKAGE_DIR,
    BundleRejected,
    bundle_files,
    check_manifest,
    foreign_code,
)
from monai_diffens.bundle.versions import check_versions, read_metadata
from monai_diffens.messages import say


def check_before_run(bundle_root: str | Path) -> None:
    """First thing a workflow does: versions, and where the bundle has a manifest, its files and its package.

    A bundle without a manifest is one under development: only versions are checked.

    Raises:
        SystemExit: with one line that says what is wrong and what to do.
    """
    root = Path(str(bundle_root)).resolve()
    try:
        check_versions(root)
        if (root / MANIFEST).exists():
            entries = check_manifest(root)
            check_configs(root)
            if PACKAGE_DIR != root / PACKAGE and foreign_code(entries):
                raise BundleRejected(say("other_copy", name=root.name, version=monai_diffens.__version__))
    except BundleRejected as error:
        raise SystemExit(str(error)) from None


def verify(root: Path, code_is_trusted: bool = False) -> int:
    """Check an unpacked bundle before its first use; nothing in it is imported, evaluated or unpickled.

    Args:
        root: folder of the bundle.
        code_is_trusted: the archive's digest was compared with the published one, so the Python files in it
            may be of another version than those of this package.

    Returns:
        Number of files.

    Raises:
        BundleRejected: no manifest, a file that is missing, changed, unlisted or a link, a part of a
            configuration that is not on the allow-list, or Python code that is not this package's.
    """
    root = root.resolve()
    read_metadata(root)
    files = set(bundle_files(root))
    entries = check_manifest(root)
    unlisted = sorted(files - set(entries))
    if unlisted:
        raise BundleRejected(say("not_listed", name=root.name, count=len(unlisted), first=unlisted[0]))
    check_configs(root)
    foreign = foreign_code(entries)
    foreign += [name for name in entries if is_code(name) and not name.startswith(f"{PACKAGE}/")]
    if foreign and not code_is_trusted:
        raise BundleRejected(say("foreign_code", name=root.name, count=len(foreign), first=foreign[0]))
    return len(entries)


def is_code(name: str) -> bool:
    """Whether Python would import a file of this name."""
    return name.endswith((".py", ".pyc", ".pyd", ".pyw", ".so", ".dll", ".dylib", ".pth", ".zip", ".egg"))

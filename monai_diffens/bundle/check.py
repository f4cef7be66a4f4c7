"""Checks of an unpacked bundle: all of them before its first use, the cheap ones in every run.

What they promise: nothing in the bundle was run to check it; every file is the one in its manifest; its
configurations run nothing but listed code of MONAI, PyTorch and this package; its Python code is this
package's.

What they do not: who made the bundle (only a published digest tells that), that its weights do what its card
says, and where a run reads and writes, which is the configuration's choice, within its user's rights.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

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
            check_configs(root, entries)
            if root / PACKAGE != PACKAGE_DIR and foreign_code(entries):
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
            configuration that is not on the allow-list, Python code that is not this package's, or a file of
            a kind that can hold a program.
    """
    root = root.resolve()
    read_metadata(root)
    files = set(bundle_files(root))
    entries = check_manifest(root)
    unlisted = sorted(files - set(entries))
    if unlisted:
        raise BundleRejected(say("not_listed", name=root.name, count=len(unlisted), first=unlisted[0]))
    check_configs(root)
    others = [name for name in entries if not name.startswith(f"{PACKAGE}/")]
    foreign = foreign_code(entries) + [name for name in others if is_code(name)]
    if foreign and not code_is_trusted:
        raise BundleRejected(say("foreign_code", name=root.name, count=len(foreign), first=foreign[0]))
    unknown = [name for name in others if not is_code(name) and not is_known_kind(name)]
    if unknown and not code_is_trusted:
        raise BundleRejected(say("unknown_kind", name=root.name, count=len(unknown), first=unknown[0]))
    return len(entries)


def is_code(name: str) -> bool:
    """Whether Python would import a file of this name."""
    return name.lower().endswith(
        (".py", ".pyc", ".pyd", ".pyw", ".so", ".dll", ".dylib", ".pth", ".zip", ".egg")
    )


def is_known_kind(name: str) -> bool:
    """Whether a file is of a kind that a bundle needs, none of which can hold a program.

    TorchScript (.ts) and pickles (.npy, .npz, .pkl, .ckpt) are not among them.
    """
    suffix = PurePosixPath(name).suffix.lower()
    weights = name.startswith("models/") and suffix in (".pt", ".sha256")
    return weights or suffix in ("", ".conf", ".csv", ".jpg", ".json", ".md", ".png", ".txt", ".yaml", ".yml")

"""Release archives of bundles: written the same byte for byte, fetched, unpacked and checked without harm.

What the check promises: nothing in the bundle was run for it; every file is the one in its manifest; its
configurations run nothing but listed code of MONAI, PyTorch and this package; its Python code is this
package's.

What it does not: who made the bundle (only a published digest tells that), that its weights do what its card
says, and where a run reads and writes, which is the configuration's choice, within its user's rights.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import unicodedata
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from monai.apps.utils import download_url

from monai_diffens.bundle.allow_list import check_configs
from monai_diffens.bundle.folder import (
    MANIFEST,
    METADATA,
    PACKAGE,
    WEIGHTS,
    bundle_files,
    check_manifest,
    check_versions,
    foreign_code,
    format_manifest,
    is_safe_name,
    package_files,
    read_config,
    read_manifest,
)
from monai_diffens.files import digest_of, sha256_of, whole_or_absent
from monai_diffens.messages import BundleRejected, say

DIGESTS = "SHA256SUMS"
LARGEST = 2 << 30  # bytes, unpacked: weights of a bundle are below 25 MB a file
MOST = 10_000  # members
TIGHTEST, SMALL = 100, 50 << 20  # what is larger than this is not packed more tightly than that many times
RECORD = f"{WEIGHTS}.sha256"
SHIPPED = ("LICENSE", "configs/", "docs/", WEIGHTS, RECORD)  # and what begins so
TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that zip can tell


def pack(root: Path, folder: Path) -> Path:
    """Write ``folder/NAME_vVERSION.zip``: the bundle, its manifest and this package beside it.

    Members are sorted, have fixed times and permissions and are stored uncompressed, since what a compressor
    writes changes with its version: equal content gives equal bytes everywhere.

    Args:
        root: folder of a bundle with its weights.
        folder: made where it is missing.

    Raises:
        BundleRejected: weights or licence are missing, or the bundle does not pass its own checks.
    """
    root = root.resolve()
    version = read_config(root, METADATA)["version"]
    check_versions(root)
    check_configs(root)
    files = {name: root / name for name in release_files(root)}
    for needed in ("LICENSE", "docs/README.md", "docs/data_license.txt", WEIGHTS, RECORD):
        if needed not in files:
            raise BundleRejected(say("not_complete", name=root.name, file=needed))
    for record in (name for name in files if name.endswith(".sha256")):
        name = record.removesuffix(".sha256")
        recorded = (root / record).read_text(encoding="utf-8").split()[:1]
        if name not in files or recorded != [sha256_of(root / name)]:
            raise BundleRejected(say("manifest_differs", name=root.name, count=1, first=name))
    files |= package_files()  # of the running package, over what a copy of the bundle may bring
    manifest = format_manifest({name: sha256_of(path) for name, path in files.items()})
    path = folder / f"{root.name}_v{version}.zip"
    with (
        whole_or_absent(path, shared=True) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
    ):
        for name in sorted([*files, MANIFEST]):
            member = zipfile.ZipInfo(f"{root.name}/{name}", TIME)
            member.create_system = 3  # Unix, on every system
            member.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(member, manifest if name == MANIFEST else files[name].read_bytes())
    return path


def release_files(root: Path) -> list[str]:
    """Names of the files of an unpacked bundle that belong into a release, the package's among them."""
    return [
        name
        for name in bundle_files(root)
        if name.startswith((*SHIPPED, f"{PACKAGE}/")) and "__pycache__" not in name.split("/")
    ]


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
    read_config(root, METADATA)
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


def write_digests(paths: Sequence[Path]) -> Path:
    """Write the digests of archives into ``SHA256SUMS`` beside them."""
    path = paths[0].with_name(DIGESTS)
    with whole_or_absent(path, shared=True) as file:
        file.write(format_manifest({each.name: sha256_of(each) for each in paths}).encode())
    return path


def fetch(url: str, bundle_dir: Path, sha256: str | None = None, progress: bool = True) -> Path:
    """Fetch an archive, check it as :func:`unpack` does, and unpack it.

    Args:
        url: ``https://``, ``http://`` or ``file://``.
        bundle_dir: the bundle's folder appears in it, whole or not at all.
        sha256: digest as published, hexadecimal.
        progress: show a progress bar.

    Returns:
        Folder of the bundle.

    Raises:
        BundleRejected: as :func:`unpack`, or the archive could not be fetched.
    """
    name = url.rstrip("/").rsplit("/", 1)[-1]
    bundle_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=bundle_dir, prefix=".part-") as part:
        path = Path(part) / "bundle.zip"
        try:
            with warnings.catch_warnings():  # unpack compares the digest, and can say what it found
                warnings.filterwarnings("ignore", "No hash value provided", UserWarning)
                download_url(url, path, progress=progress)
        except (OSError, ValueError, RuntimeError, HTTPException) as error:
            raise BundleRejected(say("no_download", name=name, why=error)) from error
        if not path.is_file():
            raise BundleRejected(say("no_download", name=name, why="nothing was written"))
        return unpack(path, bundle_dir, sha256, name)


def unpack_and_verify(path: Path, sha256: str | None = None) -> int:
    """Number of files of an archive that :func:`unpack` accepts; what it unpacks is removed again."""
    with tempfile.TemporaryDirectory() as folder:
        return len(read_manifest(unpack(path, Path(folder), sha256)))


def unpack(path: Path, bundle_dir: Path, sha256: str | None = None, name: str | None = None) -> Path:
    """Check an archive, unpack it beside its final place, verify it there, and rename.

    Args:
        path: the archive.
        bundle_dir: the bundle's folder appears in it, whole or not at all.
        sha256: digest as published, hexadecimal.
        name: of the archive in messages.

    Raises:
        BundleRejected: the digest differs, the archive is damaged, a member is a link or could leave the
            folder, the bundle is already there, or :func:`verify` turns it down.
    """
    name = name or path.name
    try:
        # opened once: what was compared is what is unpacked
        with path.open("rb") as opened, zipfile.ZipFile(_compared(opened, sha256, name)) as archive:
            members = archive.infolist()
            top = check_members(members, name)
            target = bundle_dir / top
            if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
                raise BundleRejected(say("already_there", name=target))
            bundle_dir.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=bundle_dir, prefix=".part-") as part:
                for member in members:
                    if not member.is_dir():
                        _extract(archive, member, Path(part) / member.filename, name)
                verify(Path(part) / top, code_is_trusted=sha256 is not None)
                os.replace(Path(part) / top, target)
    except zipfile.BadZipFile as error:
        raise BundleRejected(say("not_an_archive", name=name)) from error
    return target


def _compared(opened: BinaryIO, sha256: str | None, name: str) -> BinaryIO:
    """An open archive, at its start, after a comparison with the published digest where one is given."""
    if sha256 is not None:
        found = digest_of(opened)
        if found != sha256.lower():
            raise BundleRejected(say("wrong_digest", name=name, found=found, wanted=sha256))
        opened.seek(0)
    return opened


def check_members(members: Sequence[zipfile.ZipInfo], name: str) -> str:
    """Look at the table of contents of an archive, and return its one top folder.

    Raises:
        BundleRejected: a name that is absolute, leads upwards, is no name on every system, or is there twice
            (also where only case tells two apart, or a file is a folder too); a link or special file; a
            member that is encrypted, packed in a rare way or too tightly; more than one top folder; more than
            10,000 members or 2 GB.
    """
    if len(members) > MOST:
        found = f"{len(members)} members"
        raise BundleRejected(say("unsafe_member", name=name, file=found, kind="more than any bundle has"))
    spelt: dict[str, str] = {}  # folders and files, as they are spelt
    files: set[str] = set()
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        # zipfile cuts names at a null byte and, on Windows, turns backslashes: ask for what is written; newer
        # ones take another name from a field that few readers know
        written = member.orig_filename.removesuffix("/")
        is_folder, parts = member.filename.endswith("/"), written.split("/")
        paths = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        for bad, reason in (
            (not is_safe_name(written), "a path that leads out or is no plain name"),
            (written != member.filename.removesuffix("/"), "a member of two names"),
            (kind not in (0, stat.S_IFREG, stat.S_IFDIR), "a link or special file"),
            (_folded(written) in files, "twice"),
            (any(spelt.get(_folded(path), path) != path for path in paths), "twice but for the case"),
            (any(_folded(path) in files for path in paths[:-1]), "a file that is a folder too"),
            (not is_folder and _folded(written) in spelt, "a file that is a folder too"),
            (member.flag_bits & 1, "encrypted"),
            (member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED), "packed in a rare way"),
            (member.file_size > max(SMALL, TIGHTEST * member.compress_size), "packed too tightly"),
        ):
            if bad:
                line = say("unsafe_member", name=name, file=_plain(written), kind=reason)
                raise BundleRejected(line)
        spelt |= {_folded(path): path for path in paths}
        if not is_folder:
            files.add(_folded(written))
    size = sum(member.file_size for member in members)
    if size > LARGEST:
        raise BundleRejected(say("too_large", name=name, size=size / 1e9, limit=LARGEST / 1e9))
    tops = {member.filename.split("/")[0] for member in members}
    if len(tops) != 1 or any("/" not in member.filename for member in members):
        raise BundleRejected(say("wrong_top", name=name, found=f"{len(tops)} things at its top"))
    return tops.pop()


def _folded(path: str) -> str:
    """A path as file systems compare it that tell neither case nor the composition of signs apart."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _plain(name: str) -> str:
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in name[:200])


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, name: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with archive.open(member) as source, path.open("xb") as target:
            shutil.copyfileobj(source, target)  # stops at the size told, and compares the checksum
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:  # of the disk, not of the archive
            raise
        raise BundleRejected(say("damaged_member", name=name, file=member.filename)) from error

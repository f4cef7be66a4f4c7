"""Copies of a release archive, changed."""

import shutil
import stat
import zipfile
from pathlib import Path


def rewrite(archive: Path, change) -> Path:
    """Copy an archive, each member passed through ``change(member, content)``; None leaves it out."""
    path = archive.with_name("changed.zip")
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.infolist():
            changed = change(member, old.read(member))
            if changed is not None:
                new.writestr(*changed)
    return path


def add(archive: Path, name: str, content: bytes = b"x", mode: int = stat.S_IFREG | 0o644) -> Path:
    """Copy an archive with one more member."""
    path = archive.with_name("changed.zip")
    shutil.copy(archive, path)
    member = zipfile.ZipInfo("placeholder" if "\0" in name else name)
    member.filename = name
    member.external_attr = mode << 16
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(member, content)
    return path

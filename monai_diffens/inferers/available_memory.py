"""What memory this process may still take: of the machine, and of every limit that was set for it.

Linux tells a container's or a job's limit by control groups, of version 1 or 2, nested: each folder from the
process's own up to the root may hold one. What a group uses counts files that are kept in memory, which the
system gives back when they are needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

__all__ = ["available_memory"]

# files of a limit, of what is used, and the name in memory.stat of files that can be given back
VERSIONS = {
    "cgroup2": (("memory.max", "memory.high"), "memory.current", "inactive_file"),
    "cgroup": (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
}
NO_LIMIT = 1 << 60  # version 1 writes its greatest number where none is set


class _Mount(NamedTuple):
    """Where a hierarchy of control groups is mounted, and which of its groups that shows."""

    root: str
    point: Path
    version: str


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process can still take; None where the system does not tell.

    Args:
        root: of the file system that tells it.
    """
    found = [*_of_machine(root), *_of_groups(root), *_of_process(root)]
    return max(min(found), 0) if found else None


def _of_machine(root: Path) -> Iterator[int]:
    with suppress(OSError, ValueError, LookupError):
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        yield int(dict(line.split(":") for line in lines)["MemAvailable"].split()[0]) * 1024


def _of_groups(root: Path) -> Iterator[int]:
    """What is left of the limit of each group that this process is in."""
    with suppress(OSError):
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        mounts = list(_mounts(root))
        for line in groups:
            _, controllers, group = line.split(":", 2)
            version = "cgroup" if controllers else "cgroup2"
            if controllers and "memory" not in controllers.split(","):
                continue
            for mount in mounts:
                if mount.version == version:
                    for folder in _nested(mount, group):
                        yield from _left(folder, version)


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in (root / "proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        place, _, kind = line.partition(" - ")
        words, (version, _, options) = place.split(), (*kind.split(), "", "", "")[:3]
        if version == "cgroup2" or (version == "cgroup" and "memory" in options.split(",")):
            yield _Mount(words[3], root / words[4].lstrip("/"), version)


def _nested(mount: _Mount, group: str) -> Iterator[Path]:
    """Folders of a group and of those around it, as far as the mount shows them.

    In a container the mount may begin at the group itself, while the process is told its name on the host.
    """
    inside = os.path.relpath(group, mount.root) if group.startswith(mount.root) else "."
    folder = mount.point / inside
    if not folder.is_dir():
        folder = mount.point
    while folder.is_relative_to(mount.point):
        yield folder
        folder = folder.parent


def _left(folder: Path, version: str) -> Iterator[int]:
    limits, used, cached = VERSIONS[version]
    with suppress(OSError, ValueError, LookupError):
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        taken = int((folder / used).read_text()) - int(statistics.get(cached, 0))
        for name in limits:
            text = (folder / name).read_text().strip() if (folder / name).is_file() else "max"
            if text != "max" and int(text) < NO_LIMIT:
                yield int(text) - taken


def _of_process(root: Path) -> Iterator[int]:
    """What is left of ``ulimit -v``."""
    if resource is None:
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        with suppress(OSError, ValueError, IndexError):
            pages = int((root / "proc/self/statm").read_text().split()[0])
            yield limit - pages * os.sysconf("SC_PAGE_SIZE")

"""Memory of a case: what its run needs, how it stays within a limit, and what is done where it runs out."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from monai_diffens.acquisition.slicing import PLANES, plane_axis
from monai_diffens.messages import InputRejected, OutOfStep, say
from monai_diffens.networks.diff_ensembler import DiffEnsembler

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")  # as torch says it
GIB = 2**30
FLOAT = 4  # bytes
# What the networks hold on the way, whatever the volume: the fusion takes a brain whole in it.
CPU_WORK = GIB * 5 // 8
CPU_PIXELS = 2**20  # of slices at once: 32 of 192 x 160
SEVERAL_WINDOWS = 0.8  # of it: a volume that does not fit whole holds much beside them
GPU_CHUNK = 256
# A processor's volumes in single precision at the worst moment of a step, beside conditions and predictions:
# x_t, the fused prediction, the clean sample and the temporaries of its projection, result.
STEP_VOLUMES = 6
COSTLY = 1.5  # times the voxels: what a memory limit may cost before it is told
# Linux tells a container's or a job's limit by control groups, of version 1 or 2, nested: each folder from
# the process's own up to the root may hold one. What a group uses counts files that are kept in memory, which
# the system gives back when they are needed.
#
# Files of a limit, of what is used, and the name in memory.stat of files that can be given back:
VERSIONS = {
    "cgroup2": (("memory.max", "memory.high"), "memory.current", "inactive_file"),
    "cgroup": (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
}
NO_LIMIT = 1 << 60  # version 1 writes its greatest number where none is set


@dataclass(frozen=True)
class MemoryPlan:
    """How a case is going to run.

    Attributes:
        slice_chunk: slices a pass of an expert.
        window_voxels: voxels a pass of the calibrator.
        volume_bytes: for volumes, which grow with the case.
        work_bytes: for what the networks hold on the way.
        factor: products of the fusion over those without a limit: smaller windows overlap more.
        enough_bytes: memory with which the limit costs nothing.
    """

    slice_chunk: int
    window_voxels: int
    volume_bytes: int
    work_bytes: int
    factor: float = 1.0
    enough_bytes: int = 0

    def cost(self, name: str) -> str | None:
        """A line on what the limit costs in time; None where that is little."""
        if self.factor < COSTLY:
            return None
        have = self.volume_bytes + self.work_bytes
        return say(
            "tight_memory", name=name, have=have / GIB, factor=self.factor, enough=self.enough_bytes / GIB
        )

    def apply(self, network: DiffEnsembler, keep_weights: bool) -> None:
        """Make the network run so."""
        network.bank.slice_chunk = self.slice_chunk
        network.window_voxels = network.bank.least_of_processes(self.window_voxels)
        network.keep_weights = keep_weights

    def __str__(self) -> str:
        return (
            f"about {(self.volume_bytes + self.work_bytes) / GIB:.2f} GiB of memory beside the model: "
            f"{self.volume_bytes / GIB:.2f} for volumes, {self.work_bytes / GIB:.2f} for the networks "
            f"({self.slice_chunk} slices or {self.window_voxels} voxels at once)"
        )


def slice_bytes(network: DiffEnsembler, shape: Sequence[int]) -> int:
    """Bytes that one slice of the largest plane holds in an expert; an upper bound, measured."""
    denoiser: Any = network.bank.experts[0]
    inputs = 2 + 2 * network.bank.reach
    floats = 4 * inputs + 24 * denoiser.unet.base_channels / denoiser.stem**2
    return int(FLOAT * slice_pixels(shape) * floats)


def slice_pixels(shape: Sequence[int]) -> int:
    """Pixels of a slice of the largest plane of a volume (X, Y, Z)."""
    return max(math.prod(shape) // shape[plane_axis(plane)] for plane in PLANES)


def voxel_bytes(network: DiffEnsembler, bf16: bool = False) -> int:
    """Bytes that one voxel holds in the calibrator, and what its C library keeps; a bound, measured."""
    calibrator = network.calibrator
    inputs = calibrator.conv_in.in_channels // calibrator.stem**3
    hidden = 6 * calibrator.conv_in.out_channels / calibrator.stem**3
    return int(FLOAT * 3 * inputs + (FLOAT // 2 if bf16 else FLOAT) * hidden)


def computed_voxels(network: DiffEnsembler, shape: Sequence[int], window_voxels: int) -> list[int]:
    """Voxels of each window, with what they overlap, that the calibrator computes for a volume (X, Y, Z)."""
    windows = network.calibrator.windows(shape, window_voxels)
    return [math.prod(side.stop - side.start for side in window.padded) for window in windows]


def smallest_window(network: DiffEnsembler, shape: Sequence[int]) -> int:
    """Voxels of the smallest windows that the calibrator can be run in."""
    return max(computed_voxels(network, shape, 0))


def plan_memory(
    network: DiffEnsembler,
    shape: Sequence[int],
    num_volumes: int,
    device: torch.device | str = "cpu",
    max_memory: float | None = None,
    name: str = "",
    bf16: bool = False,
) -> MemoryPlan:
    """Choose chunk and window so that a case fits.

    Args:
        network: the model.
        shape: (X, Y, Z) of the case.
        num_volumes: those of the case that are kept, of its input and of its result.
        device: where it runs.
        max_memory: limit in GiB for all of it beside the model; what the device has left when None.
        name: of the case, for the message.
        bf16: the networks compute in it.

    Raises:
        InputRejected: in one line, when not even single slices and the smallest windows fit.
    """

    def window_in(budget: float) -> int:
        window = int(min(voxels, budget // a_voxel))
        return window if window == voxels else max(smallest, int(SEVERAL_WINDOWS * window))

    device = torch.device(device)
    voxels = math.prod(shape)
    volume_bytes = FLOAT * voxels * (num_volumes + network.num_experts + STEP_VOLUMES)
    a_slice, a_voxel = slice_bytes(network, shape), voxel_bytes(network, bf16)
    smallest = smallest_window(network, shape)
    least = max(a_slice, a_voxel * smallest)
    limit = available_on(device) if max_memory is None else int(max_memory * GIB)
    if limit is not None and volume_bytes + least > limit:
        raise InputRejected(
            say("needs_memory", name=name, need=(volume_bytes + least) / GIB, limit=limit / GIB)
        )
    left = math.inf if limit is None else limit - volume_bytes
    on_gpu = device.type == "cuda"
    work = left if on_gpu else min(left, max(CPU_WORK, least))
    most = GPU_CHUNK if on_gpu else min(max(shape), max(1, CPU_PIXELS // slice_pixels(shape)))
    chunk = int(min(max(1, work // a_slice), most))
    window = window_in(work)
    work_bytes = max(chunk * a_slice, window * a_voxel)
    if on_gpu or window == voxels:
        return MemoryPlan(chunk, window, volume_bytes, work_bytes)
    free = window_in(max(CPU_WORK, least))  # without a limit
    factor = sum(computed_voxels(network, shape, window)) / sum(computed_voxels(network, shape, free))
    enough = volume_bytes + min(max(CPU_WORK, least), a_voxel * voxels)
    return MemoryPlan(chunk, window, volume_bytes, work_bytes, factor, enough)


def available_on(device: torch.device) -> int | None:
    """Bytes that can still be had on a device; None where the system does not tell."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return available_memory()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; torch raises a plain RuntimeError on a processor."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)
    )


class _Attempt:
    """One attempt of :func:`smaller_until_it_fits`; ``fits`` says how it ended."""

    def __init__(self, network: nn.Module, shape: Sequence[int]) -> None:
        self.network, self.shape, self.fits = network, shape, True

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        # several processes would run different passes from here on
        if error is None or not _alone(self.network) or not is_out_of_memory(error):
            return False
        self.fits = not _halve(self.network, self.shape)
        return not self.fits


def smaller_until_it_fits(network: nn.Module, shape: Sequence[int]) -> Iterator[_Attempt]:
    """Attempts at a pass over (X, Y, Z) voxels: where memory runs out, the next has half chunk and window.

    The result is the same, see :class:`ExpertBank` and :mod:`monai_diffens.networks.windows`. What was raised
    is raised once single slices and the smallest windows are too much.

    Example::

        for attempt in smaller_until_it_fits(network, shape):
            with attempt:
                result = network(x)
    """
    while True:
        attempt = _Attempt(network, shape)
        yield attempt
        if attempt.fits:
            return
        if torch.cuda.is_available():  # the error, whose traceback holds the failed pass's tensors, is gone
            torch.cuda.empty_cache()


@contextmanager
def in_step(network: nn.Module) -> Iterator[None]:
    """End this process where it fails while others wait for its slices.

    Going on with the next case would give the others slices of another scan.

    Raises:
        OutOfStep: what went wrong, with several processes.
    """
    try:
        yield
    except Exception as error:
        if _alone(network):
            raise
        logger.debug("details", exc_info=error)
        line = error if isinstance(error, InputRejected) else type(error).__name__
        raise OutOfStep(say("out_of_step", why=line)) from error


def _alone(network: nn.Module) -> bool:
    """Whether no other process waits for this one's slices."""
    return not isinstance(network, DiffEnsembler) or network.bank.world_size == 1


def _halve(network: nn.Module, shape: Sequence[int]) -> bool:
    """Halve chunk and window; False when both are as small as they get, or the network has none."""
    if not isinstance(network, DiffEnsembler):
        return False
    before = network.bank.slice_chunk, network.window_voxels or math.prod(shape)
    network.bank.slice_chunk = max(1, before[0] // 2)
    network.window_voxels = max(smallest_window(network, shape), before[1] // 2)
    if (network.bank.slice_chunk, network.window_voxels) == before:
        return False
    logger.warning(
        "out of memory: going on with %d slices or %d voxels at once",
        network.bank.slice_chunk,
        network.window_voxels,
    )
    return True


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

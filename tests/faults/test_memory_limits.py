"""Faults 26 and 27 and their kinds: every memory limit is seen, and what it costs is told before the run."""

import logging
import os
import resource
from bisect import bisect_left
from pathlib import Path

import pytest
import torch

from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from monai_diffens.inferers.memory import GIB, available_memory, plan_memory
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler

MEMINFO = "MemTotal:       64000000 kB\nMemAvailable:   32000000 kB\n"
ALL = 32_000_000 * 1024
V2 = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n"
V1 = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
V1 += "36 31 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
NONE = 9223372036854771712  # what version 1 writes for no limit


def machine(root: Path, group: str, mounts: str, files: dict[str, object]) -> int | None:
    """What is available on a machine that tells these things."""
    told = {"proc/meminfo": MEMINFO, "proc/self/cgroup": group, "proc/self/mountinfo": mounts, **files}
    for name, content in told.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(content))
    return available_memory(root)


def group_v2(
    folder: str, limit: object, used: int, cached: int = 0, high: object = "max"
) -> dict[str, object]:
    return {
        f"{folder}/memory.max": limit,
        f"{folder}/memory.high": high,
        f"{folder}/memory.current": used,
        f"{folder}/memory.stat": f"anon 5\ninactive_file {cached}\n",
    }


def group_v1(folder: str, limit: int, used: int, cached: int = 0) -> dict[str, object]:
    return {
        f"{folder}/memory.limit_in_bytes": limit,
        f"{folder}/memory.usage_in_bytes": used,
        f"{folder}/memory.stat": f"cache 9\ntotal_inactive_file {cached}\n",
    }


TOP, MEMORY = "sys/fs/cgroup", "sys/fs/cgroup/memory"
JOB = "/system.slice/slurmstepd.scope/job_7/step_0/user/task_0"
CASES = {
    "no limit": ("0::/\n", V2, {}, ALL),
    "version 2 at the top": ("0::/\n", V2, group_v2(TOP, 8 * GIB, GIB), 7 * GIB),
    "version 2 set to max": ("0::/\n", V2, group_v2(TOP, "max", GIB), ALL),
    "version 2, SLURM's job above the task": (
        f"0::{JOB}\n",
        V2,
        group_v2(f"{TOP}{JOB}", "max", GIB)
        | group_v2(f"{TOP}/system.slice/slurmstepd.scope/job_7", 4 * GIB, GIB),
        3 * GIB,
    ),
    "version 2, the tightest of three": (
        "0::/a/b/c\n",
        V2,
        group_v2(f"{TOP}/a", 9 * GIB, 0)
        | group_v2(f"{TOP}/a/b", 2 * GIB, 0)
        | group_v2(f"{TOP}/a/b/c", 5 * GIB, 0),
        2 * GIB,
    ),
    "version 2, throttled": ("0::/a\n", V2, group_v2(f"{TOP}/a", 9 * GIB, 0, high=GIB), GIB),
    "version 2, cached files are given back": (
        "0::/a\n",
        V2,
        group_v2(f"{TOP}/a", 4 * GIB, 3 * GIB, cached=2 * GIB),
        3 * GIB,
    ),
    "version 2, a container told its name on the host": (
        "0::/docker/abc\n",
        "31 23 0:28 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n",
        group_v2(TOP, 2 * GIB, GIB),
        GIB,
    ),
    "version 1": ("4:memory:/job\n1:cpu:/\n", V1, group_v1(f"{MEMORY}/job", 6 * GIB, 2 * GIB, GIB), 5 * GIB),
    "version 1 without a limit": ("4:memory:/job\n", V1, group_v1(f"{MEMORY}/job", NONE, GIB), ALL),
    "version 1, nested": (
        "4:memory:/slurm/uid_1/job_2\n",
        V1,
        group_v1(f"{MEMORY}/slurm/uid_1/job_2", NONE, 0) | group_v1(f"{MEMORY}/slurm/uid_1", 3 * GIB, GIB),
        2 * GIB,
    ),
    "version 1, a container that shows its group as the top": (
        "4:memory:/docker/abc\n",
        V1,
        group_v1(MEMORY, 2 * GIB, GIB),
        GIB,
    ),
    "version 1 beside version 2": ("4:memory:/a\n0::/a\n", V1 + V2, group_v1(f"{MEMORY}/a", GIB, 0), GIB),
    "more used than allowed": ("0::/a\n", V2, group_v2(f"{TOP}/a", GIB, 2 * GIB), 0),
    "files that hold something else": ("0::/a\n", V2, group_v2(f"{TOP}/a", "much", 0), ALL),
    "a damaged list of groups": ("", "no mount\n", {}, ALL),
}


@pytest.mark.parametrize(("group", "mounts", "files", "available"), CASES.values(), ids=CASES)
def test_26_the_tightest_limit_counts(tmp_path, group, mounts, files, available):
    assert machine(tmp_path, group, mounts, files) == available


def test_26_a_system_that_tells_nothing(tmp_path):
    assert available_memory(tmp_path) is None


def test_26_the_limit_of_a_shell_is_seen():
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + GIB, before[1]))
    try:
        assert 0 < available_memory() <= GIB
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def infer(**options) -> DiffEnsemblerInferer:
    return DiffEnsemblerInferer.of(TrailingDDIMScheduler(), progress=False, amp=False, **options)


def test_27_a_tight_limit_is_told_before_the_first_pass(tiny_ensembler, caplog):
    network, seen = tiny_ensembler(), []
    volume = torch.rand(1, 1, 120, 40, 44, generator=torch.Generator().manual_seed(0)) + 0.1
    free = plan_memory(network, volume.shape[2:], 1)
    limits = [free.volume_bytes / GIB + step / 2000 for step in range(1, 2000)]
    least = limits[bisect_left(limits, True, key=lambda limit: _fits(network, volume.shape[2:], limit))]
    plan = plan_memory(network, volume.shape[2:], 3, max_memory=least)

    def first(module, inputs):
        seen.append([record.levelname for record in caplog.records if "times as much" in record.message])

    assert plan.factor > 1.5
    with (
        network.get_submodule("bank.experts.0.unet.conv_in").register_forward_pre_hook(first),
        caplog.at_level(logging.INFO),
    ):
        infer(max_memory=least)(volume, network)
    assert seen[0] == ["WARNING"]


def _fits(network, shape, limit) -> bool:
    try:
        plan_memory(network, shape, 3, max_memory=limit)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("shape", [(64, 72, 60), (120, 40, 44), (96, 96, 96)])
def test_27_the_factor_falls_with_the_memory_and_enough_is_enough(tiny_ensembler, shape):
    network = tiny_ensembler()
    free = plan_memory(network, shape, 1, max_memory=64)
    assert free.factor == 1 and free.cost("a") is None
    limits = [limit for limit in (0.02, 0.03, 0.05, 0.1, 0.3) if _fits(network, shape, limit)]
    factors = [plan_memory(network, shape, 1, max_memory=limit).factor for limit in limits]
    assert factors == sorted(factors, reverse=True) and factors[-1] >= 1
    tight = next(
        (p for p in (plan_memory(network, shape, 1, max_memory=m) for m in limits) if p.enough_bytes), None
    )
    if tight is not None:
        assert plan_memory(network, shape, 1, max_memory=tight.enough_bytes / GIB * 1.01).factor == 1

"""Several processes of one run, on one machine or many: who is who, and what each of them does.

Started by ``torchrun`` or by SLURM's ``srun``. With share "cases" each process works on its own cases of the
folder; with share "slices" all work on one case, each on its slices of every plane and its windows of the
fusion, and the first one writes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist

from monai_diffens.bundle.before_run import ended_in_a_line
from monai_diffens.messages import InputRejected, TrainingFailed, say
from monai_diffens.networks.diff_ensembler import DiffEnsembler

SHARES = ("cases", "slices")
# rank, number of processes, rank on this machine. A SLURM job's own script has SLURM_NTASKS but is one
# process: what tells srun's processes is the number of tasks of the step.
LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
)
PATIENCE = timedelta(days=7)  # a process with quick cases waits for one with slow cases


class Place(NamedTuple):
    """This process among all of a run.

    Attributes:
        rank: 0 to ``world_size`` - 1.
        world_size: number of processes.
        local_rank: rank among those of this machine.
    """

    rank: int
    world_size: int
    local_rank: int


def place(environment: Mapping[str, str] | None = None) -> Place:
    """Find out from what torchrun or srun set; one process alone where neither did.

    Raises:
        InputRejected: what they set is no place among processes, so that cases would be left out.
    """
    known = os.environ if environment is None else environment
    for rank, world_size, local_rank in LAUNCHERS:
        if rank in known and world_size in known:
            told = known[rank], known[world_size], known.get(local_rank, "0")
            if not all(re.fullmatch("[0-9]+", each) for each in told) or int(told[0]) >= int(told[1]):
                raise InputRejected(say("no_place", rank=rank, value=told[0], size=world_size, count=told[1]))
            return Place(*map(int, told))
    return Place(0, 1, 0)


def start(share: str) -> None:
    """Take this process's GPU, and meet the others where the run needs them.

    With share "cases" processes that srun started need not meet: they have no MASTER_ADDR, and none ends the
    others. torchrun ends all of them when one fails, so there each waits for all, see :func:`leave`.

    Raises:
        InputRejected: for an unknown share, or where the processes cannot find each other.
    """
    if share not in SHARES:
        raise InputRejected(say("bad_share", value=share, choices=" or ".join(SHARES)))
    here = place()
    if here.world_size == 1:
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(here.local_rank % torch.cuda.device_count())
    if dist.is_initialized() or (share == "cases" and "MASTER_ADDR" not in os.environ):
        return
    if "MASTER_ADDR" not in os.environ:
        raise InputRejected(say("no_master"))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, rank=here.rank, world_size=here.world_size, timeout=PATIENCE)


def case_share(share: str) -> tuple[int, int]:
    """(rank, number of processes) that share out the cases of a folder."""
    here = place()
    return (here.rank, here.world_size) if share == "cases" else (0, 1)


def writes(share: str) -> bool:
    """Whether this process writes its results."""
    return share == "cases" or place().rank == 0


def join(network: DiffEnsembler, share: str) -> None:
    """Give the network this process's share of the slices."""
    if share == "slices":
        here = place()
        network.bank.share(here.rank, here.world_size)


def leave() -> None:
    """Wait until every process is done, so that the launcher ends none at work; then part."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def local_device() -> torch.device:
    """The GPU of this process, one each on its machine; the CPU where there is none."""
    return torch.device("cuda", place().local_rank) if torch.cuda.is_available() else torch.device("cpu")


def start_processes() -> None:
    """Join the processes that torchrun started: NCCL between GPUs, gloo between CPUs.

    Raises:
        SystemExit: see :func:`~monai_diffens.bundle.before_run.ended_in_a_line`; torchrun did not start this
            process.
    """
    with ended_in_a_line():
        if not dist.is_torchelastic_launched():
            raise TrainingFailed(say("no_torchrun"))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    if torch.cuda.is_available():
        torch.cuda.set_device(local_device())

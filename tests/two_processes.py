"""A config run by two processes, as a user does with torchrun."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from forked import Command

ROOT = Path(__file__).parents[1]
ALIKE = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def run_two(arguments: dict[str, Any], machines: int = 1) -> None:
    """Run a config in two processes as a user does.

    Each of two machines has a torchrun, as in SLURM. On one machine the processes are forked, with the
    variables that torchrun sets.
    """
    words = ["monai.bundle", "run"]
    words += [part for name, value in arguments.items() for part in (f"--{name}", str(value))]
    launched: list[Command] | list[subprocess.Popen[str]]
    if machines == 1:
        launched = in_two(words)
    else:
        command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", f"--nnodes={machines}"]
        command += ["--nproc_per_node=1", "--rdzv_id=7", "--rdzv_backend=c10d"]
        command += [f"--rdzv_endpoint=127.0.0.1:{free_port()}", "-m", *words]
        known = {**os.environ, "PYTHONPATH": str(ROOT), **ALIKE}
        pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        launched = [subprocess.Popen(command, env=known, **pipes) for _ in range(machines)]
    for each in launched:
        _, errors = each.communicate(timeout=900)
        assert each.returncode == 0, errors[-2000:]


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def in_two(words: list[str]) -> list[Command]:
    """Start a module in two processes of one machine."""
    known = ALIKE | {"TORCHELASTIC_RUN_ID": "7", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    known |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    places = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    return [Command(words, ROOT, known | place) for place in places]

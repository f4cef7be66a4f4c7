"""A config run by two processes, as a user does with torchrun."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def run_two(arguments: dict[str, Any], machines: int = 1) -> None:
    """Run a config in two processes as a user does; each of two machines has a torchrun, as in SLURM."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meeting = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", f"--nnodes={machines}"]
    command += [f"--nproc_per_node={2 // machines}", "--rdzv_id=7", "--rdzv_backend=c10d"]
    command += [f"--rdzv_endpoint={meeting}", "-m", "monai.bundle", "run"]
    command += [part for name, value in arguments.items() for part in (f"--{name}", str(value))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    launched = [
        subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for _ in range(machines)
    ]
    for machine in launched:
        _, errors = machine.communicate(timeout=900)
        assert machine.returncode == 0, errors[-2000:]

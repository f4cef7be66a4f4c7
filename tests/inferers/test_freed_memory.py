"""Freed memory is taken again without the system's pages, as far as glibc can be told."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource
import torch
from monai_diffens.inferers.freed_memory import keep_freed_memory

if {kept}:
    keep_freed_memory()
    keep_freed_memory()  # told once
for _ in range(3):
    torch.zeros(2**24).add_(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.zeros(2**24).add_(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(kept: bool) -> int:
    """Pages that ten rounds of 64 MiB asked the system for."""
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT.format(kept=kept)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return int(done.stdout.split()[-1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library is left as it is")
def test_what_a_pass_frees_serves_the_next():
    assert 10 * faults(kept=True) < faults(kept=False)

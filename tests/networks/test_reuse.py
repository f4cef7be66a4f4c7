"""Freed memory is taken again without the system's pages, compiled kernels are found again."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"

START = """
import torch
from monai_diffens.networks.reuse import keep_for_next_pass

if {kept}:
    keep_for_next_pass(2**29)
"""

# Blocks that glibc hands back to the system by itself. An aligned block wants a little more than one of its
# size that was freed: the heap has settled after a few.
FREED = """
import resource

for _ in range(10):
    torch.zeros(2**24).add_(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.zeros(2**24).add_(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

GIVEN_BACK = """
from pathlib import Path
from monai_diffens.networks.reuse import give_back_freed

pages = lambda: int(Path("/proc/self/statm").read_text().split()[1])
for _ in range(10):
    torch.zeros(2**24).add_(1)
before = pages()
give_back_freed()
print(before - pages())
"""

# more kernels than the library keeps by itself, and once more the same
COMPILED = """
weight = torch.zeros(16, 16, 3, 3)
for _ in range(2):
    print("round")
    for size in range(8, 608):
        torch.nn.functional.conv2d(torch.zeros(1, 16, 8, size), weight)
"""


def output(script: str, kept: bool, **environment: str) -> str:
    """What a process of its own prints."""
    command = [sys.executable, "-W", "ignore", "-u", "-c", START.format(kept=kept) + script]
    inherited = {name: value for name, value in os.environ.items() if name != CAPACITY}  # another test's
    told = inherited | environment
    return subprocess.run(command, env=told, capture_output=True, text=True, timeout=300, check=True).stdout


def compiled_again(kept: bool, **environment: str) -> int:
    """Kernels that were compiled in the second round."""
    printed = output(COMPILED, kept, ONEDNN_VERBOSE="profile_create", **environment)
    return printed.split("round")[-1].count("create:cache_miss")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library is left as it is")
def test_memory_that_a_pass_frees_serves_the_next():
    kept, given_back = (int(output(FREED, kept).split()[-1]) for kept in (True, False))
    assert 10 * kept < given_back


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux alone tells what a process holds")
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library is left as it is")
def test_what_is_kept_can_be_given_back():
    pages = int(output(GIVEN_BACK, True).split()[-1])
    assert pages * os.sysconf("SC_PAGESIZE") > 2**25  # half a block at least


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
def test_kernels_of_one_case_serve_the_next():
    assert compiled_again(kept=False) > 1000
    assert compiled_again(kept=True) == 0
    assert compiled_again(kept=True, **{CAPACITY: "8"}) > 1000  # a user's own setting stays

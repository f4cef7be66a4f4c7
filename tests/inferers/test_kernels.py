"""What the processor's library compiled for one case is there for the next one."""

import os
import subprocess
import sys

import pytest
import torch

CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"

# more kernels than the library keeps by itself, and once more the same
SCRIPT = """
import torch
from monai_diffens.inferers.kernels import keep_kernels

if {kept}:
    keep_kernels()
weight = torch.zeros(16, 16, 3, 3)
for _ in range(2):
    print("round")
    for size in range(8, 608):
        torch.nn.functional.conv2d(torch.zeros(1, 16, 8, size), weight)
"""


def compiled_again(kept: bool, **environment: str) -> int:
    """Kernels that were compiled in the second round."""
    command = [sys.executable, "-W", "ignore", "-u", "-c", SCRIPT.format(kept=kept)]
    inherited = {name: value for name, value in os.environ.items() if name != CAPACITY}  # another test's
    told = inherited | {"ONEDNN_VERBOSE": "profile_create"} | environment
    done = subprocess.run(command, env=told, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout.split("round")[-1].count("create:cache_miss")


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
def test_kernels_of_one_case_serve_the_next():
    assert compiled_again(kept=False) > 1000
    assert compiled_again(kept=True) == 0
    assert compiled_again(kept=True, **{CAPACITY: "8"}) > 1000  # a user's own setting stays

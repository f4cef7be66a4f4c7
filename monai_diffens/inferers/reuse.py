"""What a pass on a processor frees, or has compiled, serves the next one."""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache

from monai_diffens.inferers.memory import CPU_WORK

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's mallopt, from its malloc.h

# A kernel for each layer and size of crop: 1,400 a brain. oneDNN keeps the last 1,024 by itself, so that
# each would be thrown away before its turn comes again in the next case. 20 to 60 KiB each.
KERNELS = "4096"


@cache
def keep_for_next_pass() -> None:
    """Let glibc keep up to ``CPU_WORK`` of freed memory, and oneDNN the kernels of a whole case.

    glibc would hand large blocks back to the system at once and get them anew page by page, which took a
    tenth of a case's time. Other C libraries are left as they are, and so is a user's own setting of oneDNN,
    which reads its environment once, at its first operation.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KERNELS)
    if platform.libc_ver()[0] == "glibc":
        for parameter in (TRIM_THRESHOLD, MMAP_THRESHOLD):
            ctypes.CDLL(None).mallopt(parameter, CPU_WORK)

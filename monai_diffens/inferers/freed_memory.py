"""What a processor's passes free is kept for the next one."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

from monai_diffens.inferers.memory import CPU_WORK

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's mallopt, from its malloc.h


@cache
def keep_freed_memory() -> None:
    """Let glibc keep up to ``CPU_WORK`` that a pass has freed for the next one.

    It would hand large blocks back to the system at once and get them anew page by page, which took a tenth
    of a case's time. Other C libraries are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        for parameter in (TRIM_THRESHOLD, MMAP_THRESHOLD):
            ctypes.CDLL(None).mallopt(parameter, CPU_WORK)

"""What a pass on a processor frees, or has compiled, serves the next one, or is given back."""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's mallopt, from its malloc.h

# A kernel for each layer and size of crop: 1,400 a brain. oneDNN keeps the last 1,024 by itself, so that
# each would be thrown away before its turn comes again in the next case. 20 to 60 KiB each.
KERNELS = "4096"


@cache
def keep_for_next_pass(most: int) -> None:
    """Let glibc keep freed memory, and oneDNN the kernels of a whole case.

    glibc would hand large blocks back to the system at once and get them anew page by page, which took a
    tenth of a case's time. Other C libraries are left as they are, and so is a user's own setting of oneDNN,
    which reads its environment once, at its first operation.

    Args:
        most: bytes that glibc may keep.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KERNELS)
    if _is_glibc():
        for parameter in (TRIM_THRESHOLD, MMAP_THRESHOLD):
            ctypes.CDLL(None).mallopt(parameter, most)


def give_back_freed() -> None:
    """Let glibc hand back to the system what it keeps of freed memory.

    Blocks that it keeps are seldom of use to the next ones, which are aligned and so want a little more than
    a block of their own size: the heap grows to three times what is in use.
    """
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"

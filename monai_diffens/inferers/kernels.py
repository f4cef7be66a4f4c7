"""What a processor's library has compiled for one case serves the next one."""

from __future__ import annotations

import os

# A kernel for each layer and size of crop: 1,400 a brain. oneDNN keeps the last 1,024 by itself, so that
# each would be thrown away before its turn comes again in the next case. 20 to 60 KiB each.
KERNELS = "4096"


def keep_kernels() -> None:
    """Let oneDNN keep the kernels of a whole case; it reads this once, at its first operation.

    A user's own setting stays.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KERNELS)

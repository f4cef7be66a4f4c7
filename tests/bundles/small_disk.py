"""Run a module where a folder is a small disk that nobody else sees.

python -m small_disk FOLDER OPTIONS MODULE ...
"""

import ctypes
import os
import runpy
import subprocess
import sys

CLONE_NEWNS = 0x20000  # of linux/sched.h; os.unshare came with Python 3.12

if __name__ == "__main__":
    _, folder, options, *words = sys.argv
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    os.chdir("/")
    sys.argv = words
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)

"""Start a command and note what it took: launch.py NOTE COMMAND...; the status is the command's.

A small process of its own: Linux counts the memory of whoever starts a command as the command's.
"""

import json
import os
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run the command to its end."""
    note, *command = sys.argv[1:]
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)  # unlike Popen.wait it tells what this one process took
    process.returncode = os.waitstatus_to_exitcode(status)
    took = {"cpu_s": usage.ru_utime + usage.ru_stime, "peak_mb": usage.ru_maxrss * 1024 / 1e6}
    Path(note).write_text(json.dumps(took), encoding="utf-8")
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())

"""Commands as a user types them, in processes of their own that need not import the libraries first.

The server of :mod:`multiprocessing` imports them once for each process of tests and forks every command from
there. Only the start of the interpreter differs from what a user has; some tests start a new one as well.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import resource
import runpy
import shutil
import subprocess
import sys
import tempfile
import traceback
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "light_imports",
        "monai.bundle",
        "monai_diffens.api",
        "monai_diffens.inference",
        "monai_diffens.data.cases",
        "monai_diffens.engines.case_evaluator",
        "monai_diffens.inferers.inferer",
        "monai_diffens.report.case_report",
        "fire",
        "torch.utils.tensorboard",
        "ignite.handlers",
    ]
)
LONGEST_S = 900


class Command:
    """A forked ``python -m WORDS`` or ``python -c CODE``, with what tests use of :class:`subprocess.Popen`.

    Args:
        words: module, or -c and code, and its arguments.
        cwd: folder that it runs in, default this one.
        environment: variables beside those of this process.
        limits: of :mod:`resource`, by their number.
    """

    def __init__(
        self,
        words: Sequence[object],
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        limits: Mapping[int, int] | None = None,
    ) -> None:
        self.words = [str(word) for word in words]
        folder = tempfile.mkdtemp()
        self._forget = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._told = [Path(folder) / name for name in ("out", "err")]
        known = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
        self._process = SERVER.Process(
            target=_run, args=(self.words, str(cwd or Path.cwd()), known, dict(limits or {}), self._told)
        )
        self._process.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def communicate(self, timeout: float = LONGEST_S) -> tuple[str, str]:
        """Wait for its end; what it printed."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
            raise subprocess.TimeoutExpired(self.words, timeout)
        out, err = (path.read_text() if path.exists() else "" for path in self._told)
        self._forget()
        return out, err


def run(
    words: Sequence[object],
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    limits: Mapping[int, int] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a :class:`Command` to its end."""
    command = Command(words, cwd, environment, limits)
    out, err = command.communicate()
    assert command.returncode is not None
    return subprocess.CompletedProcess(command.words, command.returncode, out, err)


def inference(bundle: Path, **options: object) -> list[str]:
    """Words of a bundle's inference command."""
    words = ["monai.bundle", "run", "inference", "--bundle_root", str(bundle)]
    words += ["--config_file", str(bundle / "configs" / "inference.json")]
    return words + [part for name, value in options.items() for part in (f"--{name}", str(value))]


def _run(
    words: list[str], cwd: str, environment: dict[str, str], limits: dict[int, int], told: list[Path]
) -> None:
    """Be ``python``: its streams, variables, folder, arguments, and end."""
    for number, path in enumerate(told, start=1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for what, most in limits.items():
        resource.setrlimit(what, (most, most))
    sys.path.insert(0, cwd)
    sys.argv = [*words]
    status: object = 0
    try:
        if words[0] == "-c":
            sys.modules["__main__"] = ModuleType("__main__")
            exec(compile(words[1], "<string>", "exec"), sys.modules["__main__"].__dict__)
        else:
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as stopped:
        status = stopped.code
    except BaseException:
        traceback.print_exc()
        status = 1
    if not isinstance(status, int | None):
        print(status, file=sys.stderr)
        status = 1
    atexit._run_exitfuncs()  # multiprocessing ends its processes without
    sys.exit(status)

"""An environment where MONAI and its dependencies are installed, and this package is not."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

HIDDEN = ("monai_diffens", "__editable__", "__pycache__")
# Says at exit which copy of the package ran; the commands themselves stay as a user types them.
REPORT = """
import atexit, sys
def tell():
    module = sys.modules.get("monai_diffens")
    print("imported:", getattr(module, "__file__", None), file=sys.stderr)
atexit.register(tell)
"""


def make_environment(folder: Path) -> Path:
    """Make a virtual environment in ``folder`` and return its Python.

    Installing PyTorch again would take minutes; every installed package but this one is linked instead.
    """
    venv.create(folder / "venv", with_pip=False)
    packages = folder / "packages"
    packages.mkdir()
    for name in ("purelib", "platlib"):
        for entry in Path(sysconfig.get_paths()[name]).iterdir():
            if not entry.name.startswith(HIDDEN) and not (packages / entry.name).is_symlink():
                (packages / entry.name).symlink_to(entry)
    python = folder / "venv" / "bin" / "python"
    found = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        capture_output=True,
        text=True,
        check=True,
    )
    own = Path(found.stdout.strip())
    (own / "packages.pth").write_text(f"{packages}\n")
    (own / "sitecustomize.py").write_text(REPORT)
    return python


def run(python: Path, *arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run that Python from ``cwd``, with nothing of the caller's Python settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [str(python), *map(str, arguments)],
        cwd=cwd,
        env={**kept, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def infer(python: Path, bundle: Path, cwd: Path, *options: object) -> subprocess.CompletedProcess[str]:
    """Run the inference command of a bundle there."""
    command = ("-m", "monai.bundle", "run", "inference", "--bundle_root", bundle)
    return run(python, *command, "--config_file", bundle / "configs" / "inference.json", *options, cwd=cwd)


def imported(done: subprocess.CompletedProcess[str]) -> str:
    """File of the package that a run of :func:`run` imported, "None" where it imported none."""
    return done.stderr.rsplit("imported: ", 1)[-1].strip()


assert sys.platform != "win32", "links need rights on Windows"

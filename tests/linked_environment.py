"""An empty environment that holds named packages, what they require, and nothing else.

They are linked from the environment that runs, so that nothing is fetched; an import of a package that nobody
named fails there, as it would for a user.
"""

import subprocess
import sys
import venv
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement


def make_linked_environment(folder: Path, requirements: Iterable[str]) -> Path:
    """Make a virtual environment in ``folder`` and return its Python.

    Args:
        folder: made here.
        requirements: as in a ``Requires-Dist`` line; they and all that they require are linked.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    words = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip())
    for package in required(requirements):
        for file in package.files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not top.endswith(".pth") and not (site / top).exists():
                (site / top).symlink_to(Path(str(package.locate_file(top))).resolve())
    return python


def required(requirements: Iterable[str]) -> list[Distribution]:
    """The installed packages that requirements name, directly or through others, by name."""
    found: dict[tuple[str, str], Distribution] = {}
    waiting = [(Requirement(each), "") for each in requirements]
    while waiting:
        requirement, asked_by = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": asked_by}):
            continue
        for extra in sorted({"", *requirement.extras}):
            if (requirement.name.lower(), extra) not in found:
                package = distribution(requirement.name)
                found[requirement.name.lower(), extra] = package
                waiting += [(Requirement(each), extra) for each in package.requires or ()]
    return [found[key] for key in sorted(found)]


assert sys.platform != "win32", "links need rights on Windows"

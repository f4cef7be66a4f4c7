"""Puts the bundles into the wheel, as data of the package; all else is in pyproject.toml.

In a clone they stay at bundles/, where an editable install finds them.
"""

from pathlib import Path
from shutil import copyfile, rmtree

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("LICENSE", "configs/*", "docs/*", "models/model.pt", "models/model.pt.sha256")


class BuildWithBundles(build_py):
    """Copies what belongs to a release of each bundle with weights to monai_diffens/bundles/."""

    def run(self) -> None:
        """Copy the package, then the bundles."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "monai_diffens" / "bundles"
        rmtree(target, ignore_errors=True)
        for weights in sorted(Path("bundles").glob("*/models/model.pt")):
            root = weights.parents[1]
            for path in sorted(path for pattern in SHIPPED for path in root.glob(pattern)):
                copy = target / path.relative_to("bundles")
                copy.parent.mkdir(parents=True, exist_ok=True)
                copyfile(path, copy)


setup(cmdclass={"build_py": BuildWithBundles})

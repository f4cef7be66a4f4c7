"""Where the bundles lie: inside of the installed package, or beside it in a clone."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from monai_diffens.bundle.manifest import BundleRejected
from monai_diffens.messages import say

__all__ = ["BUNDLES", "CONFIG", "WEIGHTS", "bundle_path", "read_config"]

BUNDLES = {"sr": "diffensembler_sr", "translate": "diffensembler_translate"}  # task -> name
CONFIG, WEIGHTS = "configs/inference.json", "models/model.pt"


def bundle_path(task_or_name: str) -> Path:
    """Folder of a bundle, by its task ("sr", "translate") or its name.

    A clone's own ``bundles/`` is taken where the package lies in one, so that what is trained there is used.

    Raises:
        BundleRejected: neither place has it.
    """
    name = BUNDLES.get(task_or_name, task_or_name)
    package = Path(str(files("monai_diffens")))
    for folder in (package.parent / "bundles", package / "bundles"):
        if name in BUNDLES.values() and (folder / name / CONFIG).is_file():
            return folder / name
    raise BundleRejected(say("not_installed", name=name, known=", ".join(BUNDLES)))


def read_config(root: Path) -> dict[str, Any]:
    """Content of a bundle's ``inference.json``, as it stands.

    Raises:
        BundleRejected: it has none that can be read.
    """
    path = root / CONFIG
    if not path.is_file():
        raise BundleRejected(say("no_bundle", name=root))
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        why = type(error).__name__
        raise BundleRejected(say("bad_config", name=root.name, file=path.name, why=why)) from error

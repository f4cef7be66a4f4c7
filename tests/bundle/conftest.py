"""A small bundle that passes every check."""

import hashlib
import json
from pathlib import Path

import pytest

import monai_diffens
from monai_diffens.bundle.archive import pack

CONFIG = {
    "imports": ["$import torch", "$import monai_diffens.bundle.before_run as before_run"],
    "bundle_root": ".",
    "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
    "inferer": {"_target_": "monai_diffens.networks.diff_ensembler.DiffEnsembler"},
    "run": ["$before_run.check_before_run(@bundle_root)"],
}
LOGGING = "[handler_console]\nclass=StreamHandler\nargs=(sys.stdout,)\nformatter=line\n"


def metadata(**required: str) -> dict:
    return {
        "version": "0.2.0",
        "monai_version": "1.6.1",
        "pytorch_version": "2.13.0",
        "numpy_version": "2.4.6",
        "required_packages_version": {"monai-diffens": monai_diffens.__version__, **required},
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Folder of a bundle under development: no manifest, no package of its own."""
    root = tmp_path / "source" / "tiny_sr"
    weights = b"not really weights"
    files = {
        "LICENSE": b"licence\n",
        "configs/inference.json": json.dumps(CONFIG).encode(),
        "configs/metadata.json": json.dumps(metadata()).encode(),
        "configs/logging.conf": LOGGING.encode(),
        "docs/README.md": b"card\n",
        "docs/data_license.txt": b"data\n",
        "models/model.pt": weights,
        "models/model.pt.sha256": f"{hashlib.sha256(weights).hexdigest()}  model.pt\n".encode(),
        "output/scan_sr.nii.gz": b"a result",
        "train/fusion/model.pt": b"a checkpoint",
    }
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


@pytest.fixture
def archive(source, tmp_path) -> Path:
    return pack(source, tmp_path / "dist")


@pytest.fixture
def place(tmp_path) -> Path:
    """An empty folder to unpack into; what it holds afterwards is all that may have been written."""
    folder = tmp_path / "place" / "bundles"
    folder.mkdir(parents=True)
    return folder

"""Runs of the inference command that have nothing to do or must not begin: one line, and nothing written."""

import os
import pickle
import re
import shutil
from pathlib import Path

import nibabel as nib
import pytest
from bad_files import real_scan

from monai_diffens.files import sha256_of
from monai_diffens.messages import say

pytestmark = pytest.mark.slow


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def changed_copy(bundle: Path, folder: Path, weights: bytes, recorded: bool) -> Path:
    """Copy a bundle with other weights; ``recorded``: their hash stands beside them."""
    shutil.copytree(bundle, folder)
    path = folder / "models" / "model.pt"
    path.write_bytes(weights)
    if recorded:
        path.with_name("model.pt.sha256").write_text(f"{sha256_of(path)}  model.pt\n")
    return folder


@pytest.fixture(scope="module")
def stopped(bundle, data_dir_or_none, run_inference, tmp_path_factory):
    """Runs that write nothing, by name."""
    base = tmp_path_factory.mktemp("stopped")
    here, bundles = base / "here", base / "bundles"
    here.mkdir()
    scan = here / "scan.nii.gz"
    real_scan(data_dir_or_none).to_filename(scan)
    fine = nib.load(scan)
    nib.Nifti1Image(fine.dataobj, fine.affine * [[1, 1, 0.2, 1]], fine.header).to_filename(here / "fine.nii")
    (here / "cut.nii.gz").write_bytes(scan.read_bytes()[:2000])
    (here / "file").touch()
    bare = bundles / "bare"
    shutil.copytree(bundle / "configs", bare / "configs")
    trap = pickle.dumps({"weight": Trap(base / "sprung")})
    pickled = changed_copy(bundle, bundles / "pickled", trap, recorded=True)
    replaced = changed_copy(bundle, bundles / "replaced", trap, recorded=False)
    options = {
        "missing": (bundle, "missing.nii.gz", "out", {}),
        "cut": (bundle, "cut.nii.gz", "out", {}),
        "unwritable": (bundle, scan, "file/deeper", {}),
        "fine": (bundle, "fine.nii", "out", {}),
        "replaced": (replaced, scan, "out", {}),
        "pickled": (pickled, scan, "out", {}),
        "no_weights": (bare, scan, "out", {}),
        "misspelt": (bundle, scan, "out", {"target_spacin": 1}),
    }
    done = {
        name: run_inference(root, here, input=source, output_dir=out, **more)
        for name, (root, source, out, more) in options.items()
    }
    assert sorted(p.name for p in here.iterdir()) == ["cut.nii.gz", "file", "fine.nii", "scan.nii.gz"]
    assert sorted(p.name for p in base.iterdir()) == ["bundles", "here"]  # no trap was sprung
    return done


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("missing", say("input_missing", name="missing.nii.gz")),
        ("cut", "cut.nii.gz: truncated or corrupt"),
        pytest.param(
            "unwritable",
            say("unwritable", name="deeper", why="Not a directory"),
            marks=pytest.mark.bad_input(31),
        ),
        pytest.param("replaced", "does not match model.pt.sha256", marks=pytest.mark.bad_input(28)),
        pytest.param("pickled", "holds more than plain tensors", marks=pytest.mark.bad_input(28)),
        ("no_weights", "model.pt is missing: fetch the bundle again, or train it (train.json)"),
        pytest.param("misspelt", "did you mean --target_spacing?", marks=pytest.mark.bad_input(30)),
    ],
)
def test_one_line_says_why_nothing_was_done(stopped, got, name, line):
    done = stopped[name]
    got(re.sub(r"\S*/", "", done.stderr.splitlines()[-1]))
    assert done.returncode == (2 if name == "misspelt" else 1)
    assert "Traceback" not in done.stdout + done.stderr
    lines = [told for told in (done.stdout + done.stderr).splitlines() if line in told]
    assert len(lines) == 1 and done.stderr.splitlines()[-1] == lines[0]


@pytest.mark.bad_input(20)
def test_a_scan_that_is_fine_already(stopped):
    done = stopped["fine"]
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    line = say("nothing_to_do", name="fine.nii", spacing="1 x 1 x 1", target="1 x 1 x 1")
    assert line in done.stdout
    assert "0 done" in done.stdout

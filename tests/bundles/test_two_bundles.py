"""Both bundles loaded and run in one process give what each gives in a process of its own."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow

from monai_diffens.contrasts import CONTRASTS

SIZE = 24

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """One patient's T1w and thick FLAIR."""
    folder = tmp_path_factory.mktemp("patient")
    place = np.stack(np.meshgrid(*[np.linspace(-1, 1, SIZE)] * 3, indexing="ij"))
    head = np.where((place**2).sum(0) < 0.8, 100 + 20 * np.sin(9 * place[0]) * place[2], 0)
    thick = head.reshape(SIZE, SIZE, -1, 4).mean(-1)
    for name, volume, affine in (("T1w", head, np.eye(4)), ("FLAIR", thick, np.diag([1, 1, 4, 1.0]))):
        image = nib.Nifti1Image(volume.astype(np.float32), affine)
        if name == "FLAIR":
            image.affine[2, 3] = 1.5
        image.header.set_xyzt_units("mm")
        image.to_filename(folder / f"sub-01_{name}.nii.gz")
    return folder


def load(bundle: Path, source: Path, output: Path) -> ConfigWorkflow:
    config = str(bundle / "configs" / "inference.json")
    return ConfigWorkflow(
        config,
        workflow_type="inference",
        logging_file=False,
        bundle_root=str(bundle),
        input=str(source),
        output_dir=str(output),
    )


def voxels(folder: Path) -> np.ndarray:
    (path,) = folder.glob("*.nii.gz")
    return np.asarray(nib.load(path).dataobj)


@pytest.mark.slow
def test_loaded_side_by_side_they_do_not_disturb_each_other(
    bundle, translation, scans, run_inference, tmp_path
):
    bundles = bundle, translation
    inputs = [scans / "sub-01_FLAIR.nii.gz", scans]
    alone = []
    for one, source in zip(bundles, inputs, strict=True):
        out = tmp_path / f"alone_{one.name}"
        done = run_inference(one, tmp_path, input=source, output_dir=out)
        assert done.returncode == 0, done.stdout + done.stderr
        alone.append(voxels(out))
    assert alone[0].shape == alone[1].shape == (SIZE,) * 3 and not np.allclose(*alone)

    outs = [tmp_path / f"beside_{one.name}" for one in bundles]
    first, second = (load(b, i, o) for b, i, o in zip(bundles, inputs, outs, strict=True))
    first.initialize()
    second.initialize()
    assert first.check_properties() == second.check_properties() == []
    networks = first.network_def, second.network_def
    second.run()
    first.run()
    assert [len(network.bank.conditions) for network in networks] == [1, len(CONTRASTS)]
    for out, expected in zip(outs, alone, strict=True):
        np.testing.assert_array_equal(voxels(out), expected)

"""Any contrast is made from any others: the translation bundle's inference with a small random network."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.weights import save_weights

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "bundles" / "diffensembler_translate"
TINY = {"channels": [8, 16], "norm_num_groups": 4, "num_head_channels": 8, "calibrator_channels": [8, 16]}

pytestmark = pytest.mark.filterwarnings(
    "ignore:parsing config_file:UserWarning", "ignore:Not all config files"
)


def head(kind: int, thick: int = 1) -> nib.Nifti1Image:
    """A made-up scan of one head, each kind of another brightness, in slices of ``thick`` mm."""
    grid = np.stack(np.meshgrid(*[np.arange(24.0)] * 3, indexing="ij"))
    inside = np.square((grid - 11.5) / 10).sum(0) < 1
    volume = inside * (1 + 0.3 * np.sin(grid[0] + kind) + 0.2 * np.cos(grid[2])) * 100 * (kind + 1)
    affine = np.diag([1.0, 1, thick, 1])
    affine[2, 3] = (thick - 1) / 2
    slices = volume.reshape(24, 24, -1, thick).mean(-1).astype(np.float32)
    image = nib.Nifti1Image(slices, affine)
    image.header.set_xyzt_units("mm")
    return image


@pytest.fixture(scope="module")
def joint(tmp_path_factory) -> Path:
    """A copy of the bundle with a small random joint network."""
    root = tmp_path_factory.mktemp("joint") / BUNDLE.name
    shutil.copytree(BUNDLE / "configs", root / "configs")
    config = json.loads((root / "configs" / "inference.json").read_text())
    options = config["network_def"] | TINY | {"conditions": config["contrasts"], "target": "FLAIR"}
    options.pop("_target_")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = DiffEnsembler(**options)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():  # the last layers start at zero
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    save_weights(network.state_dict(), root / "models" / "model.pt")
    (root / "small.json").write_text(json.dumps({f"network_def::{k}": v for k, v in TINY.items()}))
    return root


@pytest.fixture
def make(joint, tmp_path):
    """Function (target, contrast=slice thickness, ...) to the result and the workflow that made it."""

    def run(target: str, **given: int) -> tuple[nib.Nifti1Image, ConfigWorkflow]:
        folder = tmp_path / f"in_{target}"
        folder.mkdir()
        for kind, (name, thick) in enumerate(given.items()):
            head(kind, thick).to_filename(folder / f"sub-1_{name}.nii.gz")
        workflow = ConfigWorkflow(
            [str(joint / "configs" / "inference.json"), str(joint / "small.json")],
            workflow_type="inference",
            logging_file=str(BUNDLE / "configs" / "logging.conf"),
            bundle_root=str(joint),
            input=str(folder),
            output_dir=str(tmp_path / f"out_{target}"),
            target=target,
            report=False,
        )
        workflow.initialize()
        workflow.run()
        return nib.load(tmp_path / f"out_{target}" / f"sub-1_desc-synthetic_{target}.nii.gz"), workflow

    return run


def test_the_wanted_contrast_is_made_and_each_is_another(make):
    made = {target: make(target, T1w=1)[0].get_fdata() for target in ("T2w", "FLAIR")}
    inside = head(0).get_fdata() > 0
    for volume in made.values():
        assert volume.shape == (24, 24, 24) and not volume[~inside].any() and volume[inside].std() > 1
    assert np.corrcoef(made["T2w"][inside], made["FLAIR"][inside])[0, 1] < 0.9


def test_the_result_agrees_with_the_thick_scan_of_its_own_contrast(make):
    result, workflow = make("T2w", T1w=1, T2w=4)
    get = workflow.parser.get_parsed_content
    assert get("inferer").target.measured == 2
    seen = result.get_fdata().reshape(24, 24, 6, 4).mean(-1)
    scan = head(1, 4).get_fdata()
    inside = scan > 0.5 * scan.max()
    np.testing.assert_allclose(seen[inside], scan[inside], rtol=0.02)

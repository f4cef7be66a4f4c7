"""The translation bundle runs and trains on any subset of contrasts."""

import json
from pathlib import Path
from typing import Any

import forked
import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_copies import TRANSLATION, network_of
from monai.bundle import ConfigWorkflow

from monai_diffens.contrasts import CONTRASTS
from monai_diffens.networks.weights import load_weights

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


def head(kind: int, spacing: tuple[float, float, float] = (1, 1, 1), shift: float = 0.0) -> nib.Nifti1Image:
    """A made-up scan of one head, each kind of another brightness."""
    shape = tuple(round(20 / step) for step in spacing)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -np.array(spacing) * (np.array(shape) - 1) / 2
    place = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1) @ affine[:3, :3]
    radius = np.square((place + affine[:3, 3]) / 9).sum(-1)
    affine[0, 3] += shift
    texture = 1 + 0.3 * np.sin(place[..., 0] + kind)
    image = nib.Nifti1Image(
        (np.clip(1.5 - radius, 0, 1) * texture * 100 * (kind + 1)).astype(np.float32), affine
    )
    image.header.set_xyzt_units("mm")
    return image


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    given = {
        "sub-all": {name: head(kind) for kind, name in enumerate(CONTRASTS)},
        "sub-two": {"T2w": head(2), "FLAIR": head(3, (1, 1, 4))},
        "sub-low": {"FLAIR": head(3, (1, 1, 4))},
        "sub-moved": {"T1w": head(0), "T2w": head(2, shift=0.5)},
        "sub-apart": {"T1w": head(0), "T2w": head(2, shift=30)},
        "sub-none": {"PDw": head(0)},
    }
    for case, images in given.items():
        (folder / case).mkdir()
        for name, image in images.items():
            image.to_filename(folder / case / f"{case}_{name}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def results(translation, cases, tmp_path_factory) -> tuple[Path, int]:
    """Output folder and exit status of a run over all cases."""
    out = tmp_path_factory.mktemp("results")
    workflow = ConfigWorkflow(
        str(translation / "configs" / "inference.json"),
        workflow_type="inference",
        logging_file=str(TRANSLATION / "configs" / "logging.conf"),
        bundle_root=str(translation),
        input=str(cases),
        output_dir=str(out),
        save_weights=True,
        plane_weights={"axial": 0.5},
    )
    workflow.initialize()
    with pytest.raises(SystemExit) as stop:
        workflow.run()
    return out, stop.value.code


def test_any_subset_gives_a_result_and_a_bad_case_stops_nothing(results):
    out, status = results
    done = sorted(path.name.split("_")[0] for path in out.glob("*_desc-synthetic_FLAIR.nii.gz"))
    assert done == ["sub-all", "sub-low", "sub-moved", "sub-two"] and status == 1


def test_results_lie_on_the_first_contrast(results, cases):
    for case, first in (("sub-all", "T1w"), ("sub-two", "T2w")):
        made = nib.load(results[0] / f"{case}_desc-synthetic_FLAIR.nii.gz")
        scan = nib.load(cases / case / f"{case}_{first}.nii.gz")
        assert made.shape == scan.shape
        np.testing.assert_allclose(made.affine, scan.affine, atol=1e-5)
        assert not made.get_fdata()[scan.get_fdata() == 0].any()
    assert nib.load(results[0] / "sub-low_desc-synthetic_FLAIR.nii.gz").shape == (20, 20, 20)


def test_sidecars_tell_sources_and_settings(results):
    facts = {
        case: json.loads((results[0] / f"{case}_desc-synthetic_FLAIR.json").read_text())
        for case in ("sub-all", "sub-two", "sub-moved")
    }
    assert facts["sub-all"]["SynthesizedFrom"] == [f"sub-all_{name}.nii.gz" for name in CONTRASTS]
    assert facts["sub-two"]["SynthesizedFrom"] == ["sub-two_T2w.nii.gz", "sub-two_FLAIR.nii.gz"]
    told = facts["sub-all"]["Sampling"]
    assert told["model"].startswith("diffensembler_translate ") and told["plane_weights"] == {"axial": 0.5}
    assert (told["seed"], told["num_steps"], told["fusion"]) == (0, 1, "calibrated")
    assert "T2w lies on another grid: resampled to that of T1w" in facts["sub-moved"]["Warnings"]


def test_weight_maps_sum_to_one_in_the_brain(results):
    maps = sorted(results[0].glob("sub-two_desc-synthetic_FLAIR_weight-*.nii.gz"))
    assert len(maps) == 3
    weights = np.stack([nib.load(path).get_fdata() for path in maps])
    brain = nib.load(results[0] / "sub-two_desc-synthetic_FLAIR.nii.gz").get_fdata() > 0
    np.testing.assert_allclose(weights.sum(0)[brain], 1, atol=1e-4)
    assert all(each[brain].std() > 1e-5 for each in weights)


def test_result_agrees_with_the_low_resolution_scan(results, cases):
    made = nib.load(results[0] / "sub-low_desc-synthetic_FLAIR.nii.gz").get_fdata()
    scan = nib.load(cases / "sub-low" / "sub-low_FLAIR.nii.gz").get_fdata()
    again = made.reshape(20, 20, 5, 4).mean(-1)
    inside = scan > 0.5 * scan.max()
    assert np.abs(again - scan)[inside].mean() < 0.03 * scan.max()


def test_bundle_commands(translation):
    configs = translation / "configs"
    monai.bundle.verify_net_in_out(
        net_id="network_def",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
        device="cpu",
    )


@pytest.fixture
def dataset(tmp_path) -> Path:
    """A BIDS folder of three small made-up subjects, the last for validation; one lacks a T2w."""
    rows = ["participant_id\tsplit"]
    for number, split in ((1, "train"), (2, "train"), (3, "val")):
        anat = tmp_path / "data" / f"sub-0{number}" / "anat"
        anat.mkdir(parents=True)
        for kind, name in enumerate(CONTRASTS):
            if (number, name) != (2, "T2w"):
                head(kind, shift=number).to_filename(anat / f"sub-0{number}_{name}.nii.gz")
        rows.append(f"sub-0{number}\t{split}")
    (tmp_path / "data" / "participants.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path / "data"


def prepare(bundle: Path, dataset: Path, out: Path) -> Path:
    """The data list that the bundle's command writes."""
    command = ["monai.bundle", "run", "prepare", "--config_file"]
    command += [str(bundle / "configs" / "train_planes.json"), "--bundle_root", str(bundle)]
    command += ["--dataset_dir", str(dataset), "--output_dir", str(out)]
    done = forked.run(command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sub-02 (train): accepted" in done.stdout
    assert "training: 2, validation: 1, test: 0" in done.stdout
    return out / "data_list.json"


@pytest.mark.slow
def test_training_end_to_end(translation, dataset, tmp_path):
    listed = prepare(translation, dataset, tmp_path / "prepared")

    def train(name: str, **options: Any) -> None:
        workflow = ConfigWorkflow(
            str(translation / "configs" / f"{name}.json"),
            workflow_type="train",
            data_list=str(listed),
            bundle_root=str(translation),
            output_dir=str(tmp_path / name),
            max_epochs=1,
            iterations=2,
            val_interval=1,
            val_num_steps=1,
            val_region=[24, 24, 24],
            **options,
        )
        workflow.initialize()
        workflow.run()
        monai.utils.set_determinism(None)

    train("train_planes", planes=["axial", "coronal", "sagittal"])
    folder = str(tmp_path / "train_planes")
    folders = dict.fromkeys(("axial", "coronal", "sagittal"), folder)
    train("train", plane_weights=folders, draws=3, refresh=1)
    network = network_of(translation, "train")  # joint experts, which the shipped weights are not yet
    load_weights(network, tmp_path / "train" / "model.pt")
    assert any(parameter.any() for parameter in network.calibrator.conv_out.parameters())
    for stage in ("train_planes", "train"):  # validated by sampling, with a picture
        assert torch.load(tmp_path / stage / "last.pt", weights_only=True)["best"]["epoch"] == 1
        assert (tmp_path / stage / "previews" / "epoch_0001.png").is_file()

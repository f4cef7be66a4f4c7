"""Training of the downstream segmentation: folds, what it learns, and the one file of all folds."""

import json
import logging
from pathlib import Path

import monai
import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow

from monai_diffens.messages import InputRejected
from monai_diffens.networks.weights import load_weights
from research.data_pack import aligned_subjects
from research.segmentation.segmentation_unet import SegmentationFolds, SegmentationUNet, cross_validation_fold

SHAPE = (20, 24, 20)
CHANNELS = [4, 4, 4, 4, 4, 4]

pytestmark = [
    pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning"),
    pytest.mark.filterwarnings("ignore:Not all config files"),
]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    """A data list of four training cases: a bright cube in the FLAIR is the lesion, with labels 1 and 4."""
    folder, items = tmp_path_factory.mktemp("labelled"), []
    for number in range(4):
        random = np.random.default_rng(number)
        label = np.zeros(SHAPE, np.int16)
        label[6 : 11 + number, 6:14, 5:12] = 1
        label[8, 8, 8] = 4
        volumes = {
            "FLAIR": 100 + random.integers(0, 20, SHAPE) + 200 * (label > 0),
            "ce-gadolinium_T1w": 100 + random.integers(0, 20, SHAPE),
            "lesions": label,
        }
        for name, volume in volumes.items():
            nib.Nifti1Image(volume.astype(np.int16), np.eye(4)).to_filename(
                folder / f"{number}_{name}.nii.gz"
            )
        items.append({"case": f"sub-{number}", **{name: f"{number}_{name}.nii.gz" for name in volumes}})
    (folder / "list.json").write_text(json.dumps({"training": items}))
    return folder / "list.json"


@pytest.fixture
def workflow(arguments, labelled, tmp_path):
    """Function (options) to the initialized workflow of a tiny run."""

    def build(**options) -> ConfigWorkflow:
        small = {
            "data_list": str(labelled),
            "num_folds": 2,
            "patch_size": 16,
            "iterations": 4,
            "batch_size": 1,
        }
        small |= {"folds_def#channels": CHANNELS, "learning_rate": 0.02, "ema_momentum": 0.5}
        given = arguments("train_segmentation", bundle="diffensembler_translate", **(small | options))
        built = ConfigWorkflow(workflow_type="train", **given)
        built.initialize()
        return built

    yield build
    monai.utils.set_determinism(None)
    logging.getLogger().handlers[:] = []


def test_folds_are_disjoint_cover_and_spread_the_sources():
    items = [{"case": str(number), "lesions": "x"} for number in range(11)] + [{"case": "no label"}]
    held_out = [cross_validation_fold(items, fold, 3, True) for fold in range(3)]
    assert sorted(item["case"] for fold in held_out for item in fold) == sorted(str(n) for n in range(11))
    for fold, left in enumerate(held_out):
        trained = cross_validation_fold(items, fold, 3, False)
        assert len(trained) + len(left) == 11
        assert not {item["case"] for item in trained} & {item["case"] for item in left}
    assert [item["case"] for item in held_out[1]] == ["1", "4", "7", "10"]
    for fold, count in ((3, 3), (-1, 3), (0, 12)):
        told = f"fold {fold} of {count} cannot be made of 11 labelled cases"
        with pytest.raises(InputRejected, match=told):
            cross_validation_fold(items, fold, count, True)


def test_folds_of_the_training_subjects(data_dir):
    items = aligned_subjects(data_dir, "train")
    folds = [cross_validation_fold(items, fold, 3, True) for fold in range(3)]
    counts = [len(fold) for fold in folds]
    assert min(counts) >= 4 and max(counts) - min(counts) <= 1
    sources = [{item["case"][4:-2] for item in fold} for fold in folds]
    assert all({"tcga", "upenn"} <= fold for fold in sources)


@pytest.mark.slow
def test_it_learns_validates_on_the_fold_and_joins_all(workflow, tmp_path):
    for fold, epochs in ((0, 3), (1, 1)):
        out = tmp_path / "train" / "segmentation" / f"fold_{fold}"
        run = workflow(
            fold=fold, output_dir=str(out), bundle_root=str(tmp_path), max_epochs=epochs, val_interval=epochs
        )
        parsed = run.parser.get_parsed_content
        train, left = ({item["case"] for item in parsed(f"{name}#items")} for name in ("train", "validate"))
        assert left == {f"sub-{fold}", f"sub-{fold + 2}"} and not train & left
        losses: list[float] = []
        trainer = parsed("train#trainer")
        trainer.add_event_handler(Events.ITERATION_COMPLETED, keep_loss, losses)
        run.run()
        assert len(losses) == 4 * epochs
        assert epochs == 1 or np.mean(losses[8:]) < 0.95 * np.mean(losses[:4])
        assert parsed("validate#best").epoch == epochs and 0 <= parsed("validate#best").best <= 1

    given = {"bundle_root": str(tmp_path), "output_dir": str(tmp_path / "unused")}
    join = workflow(segmentation_weights=str(tmp_path / "models" / "segmentation.pt"), **given).parser
    join.get_parsed_content("join")
    both = SegmentationFolds(2, 2, CHANNELS)
    load_weights(both, tmp_path / "models" / "segmentation.pt")  # strictly, by its hash
    image = torch.rand(1, 2, *SHAPE)
    with torch.no_grad():
        logits = both.eval()(image)
        for fold in range(2):
            alone = SegmentationUNet(2, CHANNELS).eval()
            load_weights(alone, tmp_path / "train" / "segmentation" / f"fold_{fold}" / "model.pt")
            assert torch.equal(alone(image), logits[:, fold : fold + 1])
    assert logits.shape == (1, 2, *SHAPE) and not torch.equal(logits[:, 0], logits[:, 1])


def keep_loss(engine: Engine, losses: list[float]) -> None:
    losses.append(engine.state.output[0]["loss"])

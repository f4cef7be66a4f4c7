"""The study of ablations.json on made-up scans: what it writes, and that it goes on where it was stopped."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow

from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.weights import save_weights
from research.ablation.ablation import AblationStudy
from research.ablation.ablation_report import ABLATIONS, page, skeleton, write_report
from research.ablation.variant_training import Variant, claim, variant_of
from research.studies.tables import read_table

pytestmark = [
    pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning"),
    pytest.mark.filterwarnings("ignore:Not all config files"),
]
BUNDLES = Path(__file__).parents[2] / "bundles"
TINY = {"channels": [8, 16], "norm_num_groups": 4, "num_head_channels": 8, "calibrator_channels": [8, 16]}
VARIANTS = {
    "reference": {},
    "one": {"subjects": 1, "channels": [4, 8], "features": True},
    "live": {"live": True, "softmax": True, "bias": False, "epochs": 1},
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """The translation bundle with a small network."""
    copy = tmp_path_factory.mktemp("bundle") / "translate"
    shutil.copytree(BUNDLES / "diffensembler_translate" / "configs", copy / "configs")
    for name in ("evaluate", "train"):
        path = copy / "configs" / f"{name}.json"
        config = json.loads(path.read_text())
        config["network_def"] |= TINY
        path.write_text(json.dumps(config))
    options = {key: value for key, value in config["network_def"].items() if key[0] != "_"}
    torch.manual_seed(0)
    network = DiffEnsembler(**options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    save_weights(network.state_dict(), copy / "models" / "model.pt")
    return copy


@pytest.fixture
def study(bundle, tiny_bids, tmp_path):
    """Function () to the study of a new process."""

    def build() -> AblationStudy:
        workflow = ConfigWorkflow(
            config_file=[str(bundle / "configs" / f"{name}.json") for name in ("evaluate", "ablations")],
            workflow_type="eval",
            run_id="ablate",
            logging_file=False,
            bundle_root=str(bundle),
            dataset_dir=str(tiny_bids),
            work_dir=str(tmp_path / "work"),
            output_dir=str(tmp_path / "results"),
            subjects=["sub-01", "sub-00"],
            held_out_draws=2,
            region=[16, 16, 16],
            offsets=[[0, 0, 0], [2, 2, 2]],
            settings={"T1w + FLAIR": {"contrasts": ["T1w", "FLAIR"]}},
            dial=[[1, None]],
            steps=[[2, 0.5]],
            variants=VARIANTS,
            overrides={
                "dataset_dir": str(tiny_bids),
                "draws": 3,
                "max_epochs": 2,
                "iterations": 2,
                "batch_size": 2,
                "warmup_steps": 1,
                "progress": False,
                "train#deterministic_transforms#4#spatial_size": 16,
                "train#random_transforms#0#roi_size": [16, 16, 16],
                "crop_size": 8,
            },
        )
        workflow.initialize()
        return workflow.parser.get_parsed_content("study")

    return build


def test_variants_of_a_configuration():
    assert variant_of({"channels": [4, 8], "bias": False}) == Variant(channels=(4, 8), bias=False)
    assert variant_of({}) == Variant()
    with pytest.raises(TypeError):
        variant_of({"biass": False})


def test_every_variant_of_the_bundle_is_one():
    config = json.loads((BUNDLES / "diffensembler_translate" / "configs" / "ablations.json").read_text())
    variants = {name: variant_of(options) for name, options in config["variants"].items()}
    assert variants["reference"] == Variant() and len(set(variants.values())) == len(variants)
    assert config["split"] == "val"  # nothing is tuned on test


class Stopped(Exception):
    pass


def stop_at(part: object, method: str, variant: str) -> None:
    """Let a method fail when it comes to a variant."""
    going = getattr(part, method)

    def stopping(name, *arguments):
        if name == variant:
            raise Stopped
        return going(name, *arguments)

    setattr(part, method, stopping)


def test_tables_and_a_stopped_run_goes_on(study, tmp_path):
    first = study()
    stop_at(first, "sample", "one")
    with pytest.raises(Stopped):
        first.run()
    folder, work = tmp_path / "results", tmp_path / "work"
    assert [row["variant"] for row in read_table(folder / "training.csv")] == ["reference"]
    kept = {p: p.stat().st_mtime_ns for p in (*work.glob("*/fusion.pt"), *work.glob("*/draw*.pt"))}
    weights = (work / "one" / "fusion.pt").read_bytes()
    assert len(kept) >= 2 + 3 + 2

    # killed between the last epoch of a training and its weights
    (work / "one" / "fusion.pt").unlink()
    (work / "one" / "training.json").unlink()
    assert study().run() == folder
    assert {path for path, time in kept.items() if path.stat().st_mtime_ns != time} == {
        work / "one" / "fusion.pt"
    }
    assert (work / "one" / "fusion.pt").read_bytes() == weights

    tables = {name: read_table(folder / f"{name}.csv") for name in ("training", "held_out", "samples")}
    told = [(row["variant"], row["iterations"]) for row in tables["training"]]
    assert told == [("reference", "4"), ("one", "4"), ("live", "2")]
    assert all(float(row["training_seconds"]) > 0 for row in tables["training"])
    assert float(tables["training"][-1]["draw_seconds"]) == 0 and not list((work / "live").glob("draw*"))
    assert {path.stem[-2:] for path in work.glob("draws/*.pt")} == {"00", "01"}
    held_out = {(row["variant"], row["draw"]) for row in tables["held_out"]}
    assert held_out == {(name, n) for name in ("shipped weights", *VARIANTS) for n in ("0", "1")}
    samples = [(row["variant"], row["num_steps"]) for row in tables["samples"]]
    dial = [(name, n) for name in ("plain average", "shipped weights", "reference") for n in ("1", "2")]
    wanted = {("restored spline", "0"), ("one", "1"), ("live", "1"), *dial}
    assert {point: samples.count(point) for point in samples} == dict.fromkeys(wanted, 2)  # two crops

    before = {path: path.stat().st_mtime_ns for path in work.rglob("*.pt")}
    contents = {name: (folder / f"{name}.csv").read_bytes() for name in tables}
    study().run()  # nothing is left to do
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*.pt")} == before
    assert {name: (folder / f"{name}.csv").read_bytes() for name in tables} == contents

    text = write_report(folder).read_text()
    assert {path.stem for path in folder.glob("*.png")} == {"steps", *ABLATIONS}
    assert text == page(folder, skeleton()) and "| one | " in text
    told = text.replace("## Bias", "## Bias\n\nWords of a reader.")
    assert page(folder, told) == told


def test_other_settings_are_begun_anew(study, tmp_path):
    training = study().training
    claim(tmp_path / "x", {"a": 1})
    (tmp_path / "x" / "kept").touch()
    claim(tmp_path / "x", {"a": 1})
    assert (tmp_path / "x" / "kept").is_file()
    claim(tmp_path / "x", {"a": 2})
    assert not (tmp_path / "x" / "kept").exists()

    training.subjects = ("sub-00",)
    with pytest.raises(SystemExit, match="the training subjects are sub-00, sub-01; name them all"):
        training.trained("one", Variant())

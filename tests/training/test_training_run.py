"""One tiny run of stage 2: validation by sampling, pictures, tracking; and what stops a run."""

import logging

import monai.bundle
import pytest
import torch
from monai.bundle import ConfigWorkflow
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.weights import fusion_of, load_weights, save_weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning"),
    pytest.mark.filterwarnings("ignore:Not all config files"),
]


@pytest.fixture
def run(arguments):
    """Function (stage, options) that runs it in this process and returns the workflow."""

    def start(stage: str, **options) -> ConfigWorkflow:
        workflow = ConfigWorkflow(workflow_type="train", **arguments(stage, **options))
        workflow.initialize()
        workflow.run()
        return workflow

    yield start
    monai.utils.set_determinism(None)
    logging.getLogger().handlers[:] = []


def test_validated_training_leaves_weights_pictures_and_events(run, tmp_path):
    workflow = run("train", preview_interval=2, clip_norm=0.5, accumulation_steps=2)
    out = tmp_path / "out"
    best = workflow.parser.get_parsed_content("validate#best")
    assert best.epoch in (1, 2, 3) and 5 < best.best < 60

    network = DiffEnsembler(
        channels=[8, 16], norm_num_groups=4, num_head_channels=8, calibrator_channels=[8, 16]
    )
    load_weights(network, out / "model.pt")  # strictly, by its hash
    last = torch.load(out / "last.pt", weights_only=True)
    assert last["epoch"] == 3 and last["iteration"] == 9 and last["replay"] == {"renewed": 3}
    assert [path.name for path in (out / "previews").iterdir()] == ["epoch_0002.png"]
    assert (out / "previews" / "epoch_0002.png").read_bytes()[:4] == b"\x89PNG"

    scalars, images = {}, {}
    for file in (out / "tensorboard").iterdir():
        events = EventAccumulator(str(file)).Reload()
        scalars |= {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
        images |= {tag: events.Images(tag) for tag in events.Tags()["images"]}
    assert [event.step for event in scalars["train_loss"]] == list(range(1, 10))
    assert [event.step for event in scalars["val_psnr"]] == [1, 2, 3]
    assert max(event.value for event in scalars["val_psnr"]) == pytest.approx(best.best, rel=1e-5)
    assert [event.step for event in images["validation"]] == [2]


def test_it_stops_when_samples_get_no_better(run):
    # a rate that does nothing: no validation after the first is better
    workflow = run("train", max_epochs=9, patience=2, learning_rate=1e-30, final_learning_rate=0.0)
    trainer = workflow.parser.get_parsed_content("train#trainer")
    assert trainer.state.epoch == 3
    assert workflow.parser.get_parsed_content("validate#best").epoch == 1


def test_another_run_is_not_replaced(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "last.pt").write_bytes(b"a run of yesterday")
    with pytest.raises(SystemExit, match="continue it with --resume True, or choose --output_dir"):
        run("train_planes")
    assert (tmp_path / "out" / "last.pt").read_bytes() == b"a run of yesterday"


def test_mlflow_holds_metrics_and_pictures(run, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    run("train", tracking="mlflow", preview_interval=3)
    client = mlflow.tracking.MlflowClient(f"sqlite:///{tmp_path / 'out' / 'mlruns.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'monai_experiment'")
    runs = client.search_runs([experiment.experiment_id])
    history = [point for each in runs for point in client.get_metric_history(each.info.run_id, "val_psnr")]
    assert [point.step for point in history] == [1, 2, 3]
    losses = [point for each in runs for point in client.get_metric_history(each.info.run_id, "train_loss")]
    assert len(losses) == 9
    assert any(each.data.params.get("max_epochs") == "3" for each in runs)
    pictures = [file.path for each in runs for file in client.list_artifacts(each.info.run_id, "previews")]
    assert pictures == ["previews/epoch_0003.png"]


def test_a_fusion_that_reads_feature_maps_is_trained_on_the_experts_of_a_model(run, arguments, tmp_path):
    options = {"channels": [8, 16], "norm_num_groups": 4, "num_head_channels": 8}
    model = DiffEnsembler(**options, calibrator_channels=[8, 16])
    save_weights(model.state_dict(), tmp_path / "model.pt")
    given = {"overlays": ("with_features",), "init_weights": str(tmp_path / "model.pt"), "val_interval": 3}
    workflow = run("train", **given, preview_interval=0, max_epochs=3)
    out = tmp_path / "out"
    network = DiffEnsembler(**options, calibrator_channels=[8, 16], with_features=True)
    load_weights(network, out / "model.pt")
    assert all(parameter.any() for parameter in network.alignment.parameters())  # they start at zero
    for name, value in network.bank.state_dict().items():
        torch.testing.assert_close(value, model.bank.state_dict()[name], rtol=1e-2, atol=1e-3)
    assert workflow.parser.get_parsed_content("train#dataset").features

    shrunk = {"init_weights": str(out / "model.pt"), "output_dir": str(tmp_path / "shrunk")}
    monai.bundle.run("shrink", **arguments("train", overlays=("with_features",), **shrunk), fusion_share=0.5)
    before = network.calibrator.conv_out.weight.detach().clone()
    load_weights(fusion_of(network), tmp_path / "shrunk" / "fusion_features.pt")
    torch.testing.assert_close(network.calibrator.conv_out.weight, 0.5 * before, rtol=1e-2, atol=1e-4)

"""One tiny run of stage 2: validation by sampling, pictures, tracking; and what stops a run."""

import json
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from monai_diffens.messages import say
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.weights import load_weights

CONFIG = Path(__file__).parents[2] / "bundles" / "diffensembler_sr" / "configs" / "train.json"
TRAINED = {k: v for k, v in json.loads(CONFIG.read_text())["network_def"].items() if k != "_target_"}

pytestmark = [
    pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning"),
    pytest.mark.filterwarnings("ignore:Not all config files"),
]


@pytest.fixture
def told(run_tiny, capsys):
    """Function (stage, options) to the one line that a run ends with, at status 1."""

    def line(stage: str, **options) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            run_tiny(stage, **options)
        assert stopped.value.code == 1
        return capsys.readouterr().err.splitlines()[-1]

    return line


def test_validated_training_leaves_weights_pictures_and_events(run_tiny, tmp_path):
    workflow = run_tiny("train", preview_interval=2, clip_norm=0.5, accumulation_steps=2)
    out = tmp_path / "out"
    best = workflow.parser.get_parsed_content("validate#best")
    assert best.epoch in (1, 2, 3) and 5 < best.best < 60

    network = DiffEnsembler(
        channels=[8, 16],
        norm_num_groups=4,
        num_head_channels=8,
        calibrator_channels=[8, 16],
        **TRAINED,
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


def test_it_stops_when_samples_get_no_better(run_tiny):
    # a rate that does nothing: no validation after the first is better
    workflow = run_tiny("train", max_epochs=9, patience=2, learning_rate=1e-30, final_learning_rate=0.0)
    trainer = workflow.parser.get_parsed_content("train#trainer")
    assert trainer.state.epoch == 3
    assert workflow.parser.get_parsed_content("validate#best").epoch == 1


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_its_checkpoint(
    run_tiny, told, tmp_path, monkeypatch
):
    calls = []
    right = torch.nn.MSELoss.forward

    def wrong_in_the_second_epoch(self, *arguments):
        calls.append(1)
        return right(self, *arguments) * (float("nan") if len(calls) == 5 else 1)

    monkeypatch.setattr(torch.nn.MSELoss, "forward", wrong_in_the_second_epoch)
    line = told("train_planes")
    assert line == say("loss_not_finite", name="last.pt", loss="nan", epoch=2, iteration=5)
    assert len(calls) == 5
    kept = torch.load(tmp_path / "out" / "last.pt", weights_only=True)
    assert kept["epoch"] == 1 and all(value.isfinite().all() for value in kept["network"].values())
    workflow = run_tiny("train_planes", resume=True)
    assert workflow.parser.get_parsed_content("train#trainer").state.epoch == 3


@pytest.mark.parametrize("kept", [0, 100, -100])
def test_a_damaged_checkpoint_is_one_line(run_tiny, told, tmp_path, kept):
    run_tiny("train_planes", max_epochs=1)
    file = tmp_path / "out" / "last.pt"
    damaged = file.read_bytes()[:kept]
    file.write_bytes(damaged)
    line = told("train_planes", resume=True)
    assert line.startswith(say("training_damaged", name=file, why="").split("(")[0])
    assert file.read_bytes() == damaged


def test_another_run_is_not_replaced(told, tmp_path):
    (tmp_path / "out").mkdir()
    file = tmp_path / "out" / "last.pt"
    file.write_bytes(b"a run of yesterday")
    assert told("train_planes") == say("training_there", name=file)
    assert file.read_bytes() == b"a run of yesterday"


def test_mlflow_holds_metrics_and_pictures(run_tiny, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    run_tiny("train", tracking="mlflow", preview_interval=3)
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

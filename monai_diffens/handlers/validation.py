"""What follows a validation: the best weights are kept, the training may stop, a picture is drawn."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping
from monai.handlers import MLFlowHandler
from monai.handlers.tensorboard_handlers import TensorBoardHandler
from torch import nn

from monai_diffens.networks.weights import save_weights
from monai_diffens.report.picture import three_plane_picture

logger = logging.getLogger(__name__)


class BestWeights:
    """Write ``model.pt`` whenever the validation score rises; without validation, at the end.

    Attached to the evaluator. A lower denoising loss has been seen with worse samples, so the score is of
    samples.

    Args:
        network: its weights are written in half precision, with their SHA-256.
        path: of the weights.
        metric: name of the evaluator's metric, the larger the better.
    """

    def __init__(self, network: nn.Module, path: str | Path, metric: str) -> None:
        self.network = network
        self.path = Path(path)
        self.metric = metric
        self.best = float("-inf")
        self.epoch = 0

    def attach(self, engine: Engine) -> None:
        """Compare after each run of the evaluator ``engine``."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Compare; ``engine.state.epoch`` is the trainer's epoch."""
        score = float(engine.state.metrics[self.metric])
        if score > self.best:
            self.best, self.epoch = score, engine.state.epoch
            self._write()
        metrics = engine.state.metrics.items()
        scores = ", ".join(f"{name} {value:.4f}" for name, value in metrics if isinstance(value, float))
        logger.info("epoch %d: %s; best %.4f at epoch %d", engine.state.epoch, scores, self.best, self.epoch)

    def finish(self) -> None:
        """Write the last weights when no epoch was validated, and say where the weights are."""
        if self.epoch == 0:
            self._write()
        chosen = (
            f"of epoch {self.epoch}, {self.metric} {self.best:.4f}" if self.epoch else "of the last epoch"
        )
        logger.info("weights %s: %s", chosen, self.path)

    def state_dict(self) -> dict[str, Any]:
        """Best score and its epoch."""
        return {"best": self.best, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo :meth:`state_dict`."""
        self.best, self.epoch = state["best"], state["epoch"]

    def _write(self) -> None:
        if idist.get_rank() == 0:
            save_weights(self.network.state_dict(), self.path)


class ResumableEarlyStop(EarlyStopping):
    """ignite's early stopping in a form that configs can use and that a resumed run goes on counting with.

    Attached to the evaluator. MONAI's EarlyStopHandler has no state to save.

    Args:
        patience: validations without a better score before the training stops.
        metric: name of the evaluator's metric, the larger the better.
    """

    def __init__(self, patience: int, metric: str) -> None:
        nobody = Engine(lambda engine, batch: None)
        super().__init__(patience, lambda engine: engine.state.metrics[metric], nobody)

    def attach(self, engine: Engine) -> None:  # type: ignore[override]
        """Count after each run of the evaluator ``engine``; ignite's would begin anew with each."""
        engine.add_event_handler(Events.COMPLETED, self)

    def set_trainer(self, trainer: Engine) -> None:
        """Name the engine to stop; the evaluator belongs to it, so it cannot be an argument."""
        self.trainer = trainer

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting; a run that had stopped stays stopped."""
        super().load_state_dict(state)
        if self.counter >= self.patience:
            self.trainer.terminate()


class ThreePlanePreview(TensorBoardHandler):
    """Write a three-plane PNG of the first validation case: condition, sample and truth with its error.

    Attached to the evaluator. The picture also goes to TensorBoard, and to MLflow where that tracks the run.

    Args:
        output_dir: receives ``epoch_NNNN.png``.
        log_dir: TensorBoard's folder.
        interval: epochs between pictures, a multiple of the validation interval; 0 for none.
        data_range: white, and the peak of PSNR in the titles.
    """

    def __init__(self, output_dir: str | Path, log_dir: str, interval: int, data_range: float = 1.0) -> None:
        super().__init__(log_dir=log_dir)
        self.output_dir = Path(output_dir)
        self.interval = interval
        self.data_range = data_range
        self.trackers: list[MLFlowHandler] = []

    def attach(self, engine: Engine) -> None:
        """Draw after the first case of each run of the evaluator ``engine``."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def track(self, handlers: Iterable[Any]) -> None:
        """Send pictures to the MLflow handlers among ``handlers``, too."""
        self.trackers = [each for each in handlers if isinstance(each, MLFlowHandler)]

    def __call__(self, engine: Engine) -> None:
        """Draw, where it is the first case and the epoch's turn."""
        epoch = engine.state.epoch
        first = (engine.state.iteration - 1) % (engine.state.epoch_length or 1) == 0
        if not self.interval or epoch % self.interval or not first:
            return
        output: Any = engine.state.output
        case = output[0]
        image, sample, truth = (
            torch.as_tensor(case[key])[0].float().cpu() for key in ("image", "pred", "label")
        )
        self.output_dir.mkdir(parents=True, exist_ok=True)
        path = three_plane_picture(
            {"condition": image.numpy(), "sample": sample.clamp(min=0).numpy()},
            truth.numpy(),
            self.output_dir / f"epoch_{epoch:04d}.png",
            data_range=self.data_range,
            caption=f"Validation sample after epoch {epoch}. Research use only; synthetic.",
        )
        from matplotlib.image import imread

        self._writer.add_image("validation", imread(path)[..., :3], epoch, dataformats="HWC")
        for tracker in self.trackers:
            run: Any = tracker.cur_run
            tracker.client.log_artifact(run.info.run_id, str(path), "previews")

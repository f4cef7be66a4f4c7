"""Pictures of a validation sample while the training runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.handlers import MLFlowHandler
from monai.handlers.tensorboard_handlers import TensorBoardHandler

from monai_diffens.report.picture import three_plane_picture


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

"""The downstream task: lesions segmented on the real contrast and on what every method makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.metrics import DiceMetric, HausdorffDistanceMetric
from torch import Tensor

from monai_diffens.networks.weights import save_atomically
from monai_diffens.transforms.thick_slices import measurement_for
from research.metrics.lesions import lesion_box
from research.segmentation.segmentation_unet import SegmentationFolds
from research.studies.baselines import DialPoint, Drawn
from research.studies.subset_sweep import LABEL_KEY, SubsetSweep
from research.studies.sweep import Trial
from research.studies.tables import MethodMarks, weights_mark

REAL = "real"
CUBIC = "cubic"
THICK = "thick slices"


class SegmentationSweep(SubsetSweep):
    """Segment the lesions of test cases on the real target and on each method's, and compare with the labels.

    Everything but the target is real. A row holds, for each fold's network, "dice_<fold>", "hd95_<fold>", the
    95th percentile of the Hausdorff distance in mm (empty where nothing is found), the volume it segments,
    "ml_<fold>", and that of the labels, "ml_truth", all of the box that is restored. "thick slices" is the
    target's low-resolution scan as a viewer shows it, each voxel repeated.

    Args:
        segmenter: the networks of all folds, on ``device``.
        windows: MONAI's sliding windows, of the size that the training's crops had.
        segmented: the contrasts that ``segmenter`` takes, in its order, the target among them.
        segmentation_weights: file of ``segmenter``, for the rows' mark.
        weights_files: files of what makes the target.
        predictions: folder that keeps what the methods made, named by a hash of conditions, weights, seed and
            point of the dial: other segmentation networks need no sampling again, and "seconds" are then
            those of reading. Nothing is kept when None.
        **options: of :class:`SubsetSweep`. ``items`` have ``lesions``; ``region`` is a box around these.
    """

    def __init__(
        self,
        segmenter: SegmentationFolds,
        windows: Inferer,
        segmented: Sequence[str] = ("FLAIR", "ce-gadolinium_T1w"),
        segmentation_weights: str | Path | None = None,
        weights_files: Sequence[str | Path | None] = (),
        predictions: str | Path | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.made_by = weights_mark(weights_files)
        self.marks = MethodMarks([*weights_files, segmentation_weights])
        self.table = self.table.with_name("segmentation.csv")
        self.segmenter = segmenter.eval()
        self.windows = windows
        self.segmented = tuple(segmented)
        self.predictions = None if predictions is None else Path(predictions)

    def load(self, item: Mapping[str, Any]) -> dict[str, Tensor]:
        """Contrasts and lesions (1, X, Y, Z) of the box around the lesions; the lesions with their affine."""
        loaded = self.preprocessing(item)
        lesions = loaded[LABEL_KEY] > 0
        box = (slice(None), *lesion_box(_plain(lesions[0]).numpy(), self.region or lesions.shape[1:]))
        volumes = {key: _plain(loaded[key]).float()[box] for key in self.contrasts if key in loaded}
        affine = lesions.affine if isinstance(lesions, MetaTensor) else torch.eye(4)
        return volumes | {LABEL_KEY: MetaTensor(_plain(lesions).float()[box], affine=affine)}

    def trial(self, case: str, loaded: Any, setting: Mapping[str, Any]) -> Trial:
        """As the sweep degrades a case; what is measured is the segmentation."""
        trial = super().trial(case, loaded, setting)
        truth = loaded[self.target]
        baselines: dict[str, Callable[[], Tensor]] = {REAL: lambda: truth}
        if self.target in setting["contrasts"]:
            measurement = measurement_for(truth.shape[1:], self.factors)
            baselines[THICK] = lambda: repeated(measurement(truth), truth.shape)
            baselines[CUBIC] = lambda: measurement.interpolate(measurement(truth)).clamp(min=0)
        return Trial(trial.inputs, partial(self.figures, loaded), baselines | trial.baselines, trial.scale)

    @torch.no_grad()
    def figures(self, loaded: Mapping[str, Tensor], result: Tensor) -> dict[str, Any]:
        """Dice and volumes in ml of every fold's segmentation on ``result`` (1, X, Y, Z)."""
        channels = [result if key == self.target else loaded[key] for key in self.segmented]
        logits = self.windows(torch.cat(channels)[None].to(self.device), self.segmenter)
        found = (torch.as_tensor(logits)[0, :, None] > 0).float().cpu()  # folds as a batch
        lesions = loaded[LABEL_KEY]
        label = _plain(lesions)[None].expand_as(found)
        dice = torch.as_tensor(DiceMetric()(found, label))
        affine = lesions.affine if isinstance(lesions, MetaTensor) else torch.eye(4)
        ml = float(affine[:3, :3].det().abs()) / 1000
        spacing = affine[:3, :3].norm(dim=0).tolist()
        figures: dict[str, Any] = {f"dice_{fold}": float(value) for fold, value in enumerate(dice)}
        figures |= {f"hd95_{fold}": hd95(each, label[0], spacing) for fold, each in enumerate(found)}
        figures |= {f"ml_{fold}": float(each.sum()) * ml for fold, each in enumerate(found)}
        return figures | {"ml_truth": float(label[0].sum()) * ml}

    def restore(
        self,
        inputs: Tensor,
        fusion: str,
        point: DialPoint,
        drawn: Drawn | None = None,
        scale: float = 1.0,
    ) -> Tensor:
        """What the sweep restores, or what is kept of it."""
        sample = partial(super().restore, inputs, fusion, point, drawn, scale)
        return self.kept((fusion, point, self.inferer.sampling.seed, scale), inputs, sample)

    def regress(self, inputs: Tensor, network: torch.nn.Module, scale: float) -> Tensor:
        """What the regression makes, or what is kept of it."""
        sample = partial(super().regress, inputs, network, scale)
        return self.kept(("regression", scale), inputs, sample)

    def kept(self, what: tuple[Any, ...], inputs: Tensor, sample: Callable[[], Tensor]) -> Tensor:
        """The volume that was kept for the same inputs, weights and settings; else sampled, and kept."""
        if self.predictions is None:
            return sample()
        case = inputs.meta.get("case") if isinstance(inputs, MetaTensor) else None
        digest = sha256(repr((case, self.made_by, self.factors, what)).encode())
        digest.update(_plain(inputs).cpu().contiguous().numpy().tobytes())
        path = self.predictions / f"{digest.hexdigest()[:32]}.pt"
        if path.is_file():
            return torch.as_tensor(torch.load(path, weights_only=True))
        volume = _plain(sample()).clone()
        self.predictions.mkdir(parents=True, exist_ok=True)
        save_atomically(volume, path)
        return volume


def repeated(low: Tensor, shape: Sequence[int]) -> Tensor:
    """A scan (1, x, y, z) on the fine grid of ``shape`` (1, X, Y, Z), each voxel repeated."""
    return torch.nn.functional.interpolate(low[None], list(shape[1:]), mode="nearest-exact")[0]


def hd95(found: Tensor, label: Tensor, spacing: Sequence[float]) -> float | str:
    """95th percentile of the Hausdorff distance in mm of two masks (1, X, Y, Z); "" where one is empty."""
    if not found.any() or not label.any():
        return ""
    metric = HausdorffDistanceMetric(percentile=95)
    return float(torch.as_tensor(metric(found[None], label[None], spacing=list(spacing))))


def _plain(volume: Any) -> Tensor:
    return volume.as_tensor() if isinstance(volume, MetaTensor) else torch.as_tensor(volume)

"""Evaluation of translation: every subset of conditions, every fusion, over the dial, in one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from monai_diffens.metrics import psnr, ssim_map
from monai_diffens.transforms.conditions import StackConditionsd
from monai_diffens.transforms.intensity import foreground_percentile
from monai_diffens.transforms.thick_slices import measurement_for, thick_slice
from research.baselines.regression_inferer import RegressionInferer
from research.baselines.training_targets import MATCHED, TEMPLATE, TrainingTargets
from research.metrics.suite import volume_metrics
from research.studies.baselines import REGRESSION
from research.studies.sweep import DialSweep, Realism, Trial

LABEL_KEY = "lesions"
PEAK_PERCENTILE = 99.5


def all_subsets(contrasts: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Settings of :class:`SubsetSweep`: the subsets of 1, 2, ... contrasts, by their names."""
    return {
        " + ".join(chosen): {"contrasts": list(chosen)}
        for count in range(1, len(contrasts) + 1)
        for chosen in combinations(contrasts, count)
    }


def some_subsets(names: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Those settings of :func:`all_subsets` that have these names."""
    return {name: {"contrasts": name.split(" + ")} for name in names}


def all_others(contrasts: Sequence[str], target: str) -> dict[str, dict[str, list[str]]]:
    """The setting of all contrasts but the target's."""
    others = [contrast for contrast in contrasts if contrast != target]
    return {"all others": {"contrasts": others}}


class SubsetSweep(DialSweep):
    """Synthesise test volumes from every subset of their contrasts.

    The target's own low-resolution scan, one of the conditions, is made from it. Figures are on volumes
    divided by the truth's 99.5th foreground percentile, with data range 1; "psnr_matched" is taken after
    multiplying the result by the one factor that minimises its squared error inside the brain, "psnr_label"
    and "ssim_label" inside the lesion labels.

    Args:
        contrasts: conditions in the network's order.
        target: the contrast to synthesise.
        factors: slice spacing of the low-resolution scan along each axis, in voxels.
        regression: a network that regresses the residual, on ``device``: one more method; none when None.
        regression_inferer: runs it.
        references: translations without a network, of the subsets without the target; none when None.
        **options: of :class:`DialSweep`; ``settings`` are those of :func:`all_subsets`.
    """

    def __init__(
        self,
        contrasts: Sequence[str],
        target: str = "FLAIR",
        factors: Sequence[float] = (4, 4, 4),
        regression: nn.Module | None = None,
        regression_inferer: RegressionInferer | None = None,
        references: TrainingTargets | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.contrasts = tuple(contrasts)
        self.target = target
        self.factors = tuple(factors)
        self.regression = None if regression is None else regression.eval()
        self.regression_inferer = regression_inferer or RegressionInferer()
        self.references = references
        self.stack = StackConditionsd(self.contrasts, thick_key=target)

    def load(self, item: Mapping[str, Any]) -> dict[str, Tensor]:
        """Contrasts (1, X, Y, Z), 1 at the brain's median; lesions and training mean where there are some."""
        loaded = self.preprocessing(item)
        keys = [key for key in (*self.contrasts, LABEL_KEY) if key in loaded]
        if self.references is not None:  # before the brain is cut
            given = {key: torch.as_tensor(loaded[key]) for key in self.contrasts if key in loaded}
            loaded[TEMPLATE] = self.references.template(given)
            keys.append(TEMPLATE)
        return {key: torch.as_tensor(self.crop(loaded[key])).float() for key in keys}

    def applies(self, loaded: Any, setting: Mapping[str, Any]) -> bool:
        """Whether a subject has all contrasts of a setting: with fewer it would be another one."""
        return set(setting["contrasts"]) <= set(loaded)

    def trial(self, case: str, loaded: Any, setting: Mapping[str, Any]) -> Trial:
        """Leave the contrasts of the setting, and degrade the target where it is one of them."""
        volumes: Mapping[str, Tensor] = loaded
        truth = volumes[self.target]
        measurement = measurement_for(truth.shape[1:], self.factors)
        chosen = {key: volumes[key] for key in setting["contrasts"] if key in volumes}
        scale, baselines = 1.0, dict[str, Callable[[], Tensor]]()
        if self.target in chosen:
            low = thick_slice(MetaTensor(truth), self.factors)
            # a scan is scaled by its own median, which is not quite the truth's
            scale = foreground_percentile(measurement(truth), 50) / foreground_percentile(truth, 50)
            chosen[self.target] = low / scale
            spline = torch.as_tensor(low).clamp(min=0)
            baselines = {"restored spline": lambda: spline}
        elif self.references is not None and TEMPLATE in volumes:
            baselines = {
                MATCHED: partial(self.references.matched, chosen),
                TEMPLATE: lambda: volumes[TEMPLATE],
            }
        inputs = self.stack(chosen)["image"]
        inputs.meta["case"] = case
        if self.regression is not None:
            baselines[REGRESSION] = partial(self.regress, inputs, self.regression, scale)

        def measure(result: Tensor) -> dict[str, Any]:
            figures = translation_metrics(result[0], truth[0], volumes.get(LABEL_KEY), self.realism)
            agrees: float | str = ""
            if self.target in chosen:
                agrees = float((measurement(result) - measurement(truth)).abs().mean())
            return figures | {"consistency": agrees}

        return Trial(inputs[None], measure, baselines, scale)

    def regress(self, inputs: Tensor, network: nn.Module, scale: float) -> Tensor:
        """What the regression makes of scaled conditions (M, X, Y, Z), (1, X, Y, Z) on the CPU."""
        result = self.regression_inferer(inputs[None].to(self.device), network)
        return torch.as_tensor(result[0]).cpu() * scale


def translation_metrics(
    pred: Tensor, truth: Tensor, lesions: Tensor | None = None, realism: Realism | None = None
) -> dict[str, Any]:
    """Figures of a synthesised volume.

    Args:
        pred: (X, Y, Z), in the truth's units.
        truth: (X, Y, Z), 0 outside of the brain.
        lesions: (1, X, Y, Z), above 0 inside; None where nothing is labelled.
        realism: measures "fid" and "mmd"; neither when None.

    Returns:
        Those of :func:`volume_metrics` and the further ones that :class:`SubsetSweep` describes; "" for those
        of lesions where there are none.
    """
    peak = foreground_percentile(truth, PEAK_PERCENTILE)
    pred, truth = (pred / peak).double(), (truth / peak).double()
    brain = truth > 0
    figures: dict[str, Any] = dict(volume_metrics(pred, truth, brain, data_range=1.0))
    figures |= realism(pred, truth, brain) if realism else {}
    gain = (pred[brain] * truth[brain]).sum() / pred[brain].square().sum().clamp(min=1e-12)
    figures["psnr_matched"] = float(psnr(gain * pred[brain], truth[brain], 1.0))
    figures |= {"psnr_label": "", "ssim_label": ""}
    if lesions is not None and bool((lesions > 0).any()):
        inside = lesions[0] > 0
        figures["psnr_label"] = float(psnr(pred[inside], truth[inside], 1.0))
        figures["ssim_label"] = float(ssim_map(pred, truth, 1.0)[inside].mean())
    return figures

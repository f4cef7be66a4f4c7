"""How the inferer samples, keeps to the scan, what it puts out and how it runs: one object each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from monai_diffens.transforms.describe import SPREAD, WEIGHT


@dataclass
class Sampling:
    """How a volume is sampled.

    Args:
        num_steps: denoising steps a sample, the dial from regression (1) to realism (10 and more).
        num_samples: samples a case; their voxel-wise mean is returned.
        seed: with the case's name it seeds the noise, so that the same case gives the same volume
            whatever ran before it.
        fusion: "calibrated", "mean", "alternate", a plane, a group of conditions or one expert's name.
        restart: see :func:`~monai_diffens.inferers.sampling.sample_with_prior`; None for a plain walk.
        residual_gain: factor on the predicted residual, with base "condition" alone: 1 is the network's
            estimate, more is sharper and further from the truth. The scan saw nothing of the residual, so the
            result agrees with it whatever the gain.
        plane_weights: factor of each plane in the fusion, see
            :meth:`~monai_diffens.networks.diff_ensembler.DiffEnsembler.emphasis`.

    Raises:
        ValueError: for a number that is out of range.
    """

    num_steps: int = 1
    num_samples: int = 1
    seed: int = 0
    fusion: str = "calibrated"
    restart: float | None = 0.5
    residual_gain: float = 1.0
    plane_weights: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if min(self.num_steps, self.num_samples) < 1:
            counts = f"{self.num_steps} and {self.num_samples}"
            raise ValueError(f"num_steps and num_samples must be 1 or more, got {counts}")
        if self.residual_gain <= 0:
            raise ValueError(f"residual_gain must be above 0, got {self.residual_gain}")


@dataclass
class Consistency:
    """How the result keeps to what the scan measured.

    Args:
        with_scan: make the result, thick-sliced again, equal the input where ``inputs.meta`` says how it
            was sliced.
        of_experts: make every expert agree with the scan before the fusion too, where the fusion was trained
            on such experts.
        non_negative: cut the result off at 0, and give what is lost back where the scan saw it, see
            :func:`~monai_diffens.acquisition.measurement.fit_inside`.
    """

    with_scan: bool = True
    of_experts: bool = False
    non_negative: bool = False


@dataclass
class Outputs:
    """What is put out behind the volume.

    Args:
        spread: a channel of the standard deviation over the samples, 0 outside of the foreground.
        spread_scale: factor on that channel.
        weights: a channel for each expert: its weight, averaged over all steps of all samples. They sum
            to 1, are 0 outside of the foreground, and with fusion "calibrated" may leave [0, 1].

    Raises:
        ValueError: for a factor that is not above 0.
    """

    spread: bool = False
    spread_scale: float = 1.0
    weights: bool = False

    def __post_init__(self) -> None:
        if self.spread_scale <= 0:
            raise ValueError(f"spread_scale must be above 0, got {self.spread_scale}")


def map_names(spread: bool, experts: Sequence[str] = ()) -> list[str]:
    """Names of the maps of a run, in the order of the inferer's channels; they serve as file name suffixes.

    Args:
        spread: whether there is a map of the standard deviation.
        experts: names of the experts whose weights are wanted, "axial" or "axial/T1w".

    Returns:
        For example ``["std", "weight-axial", "weight-axial-T1w"]``.
    """
    return [SPREAD] * bool(spread) + [WEIGHT + name.replace("/", "-") for name in experts]


@dataclass
class RunTime:
    """How the networks run, which changes a result by rounding at most.

    Args:
        amp: bf16 autocast: True, False, or "auto" (where the processor computes in bf16).
        max_memory: limit in GiB beside the model; what the device has left when None.
        progress: show a progress bar.
        margin: voxels kept around the foreground; what lies outside is left as the base has it.
        crop_slices: run the experts on what slices show alone, a fifth fewer products. Their norms then see
            less background; on whole slices the result is to rounding that of MONAI's own pieces.

    Raises:
        ValueError: for a precision or a limit that is none.
    """

    amp: bool | str = "auto"
    max_memory: float | None = None
    progress: bool = True
    margin: int = 4
    crop_slices: bool = True

    def __post_init__(self) -> None:
        if self.amp not in (True, False, "auto"):
            raise ValueError(f"amp must be true, false or 'auto', got '{self.amp}'")
        if self.max_memory is not None and self.max_memory <= 0:
            raise ValueError(f"max_memory must be above 0 GiB, got {self.max_memory}")


GROUPS: dict[str, Any] = {
    "sampling": Sampling,
    "consistency": Consistency,
    "outputs": Outputs,
    "run_time": RunTime,
}


def changed(groups: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Settings objects by name, with the options among ``options`` that are theirs replaced.

    Raises:
        TypeError: for a name that no object has.
    """
    new = dict(groups)
    for key, value in options.items():
        holder = next((name for name, kind in GROUPS.items() if key in kind.__dataclass_fields__), None)
        if holder is None:
            raise TypeError(f"unknown option '{key}' of the inferer")
        new[holder] = replace(new[holder], **{key: value})
    return new


def grouped(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by name to the objects that hold them, as the inferer's arguments.

    Raises:
        TypeError: for a name that no object has.
    """
    return changed({name: kind() for name, kind in GROUPS.items()}, options)

"""The sweeps behind the paper's table: both bundles' evaluation, with the paper's tasks and figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from research.data_pack import aligned_subjects, sharpest_volumes
from research.paper.figures import PaperFigures
from research.paper.published import BOTH, MT, SR
from research.studies.sweep import DialSweep

ROOT = Path(__file__).parents[2]
BUNDLES = {"sr": "diffensembler_sr", "translate": "diffensembler_translate"}
PLANES = ("axial", "coronal", "sagittal")
FUSIONS = ("calibrated", "mean", "alternate", *PLANES)
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "sr": {SR: {"factors": [4, 4, 4]}},
    "translate": {
        MT: {"contrasts": ["ce-gadolinium_T1w"]},
        BOTH: {"contrasts": ["ce-gadolinium_T1w", "FLAIR"]},
    },
}
GAIN = {"sr": 1.4, "translate": 1.0}  # what the bundles' inference has by default


def paper_sweep(
    bundle: str,
    dataset_dir: Path,
    split: str,
    output_dir: Path,
    work_dir: Path,
    region: Sequence[int] | None = None,
    volumes: int | None = None,
) -> DialSweep:
    """The sweep of one bundle: every row of the table at one step, the default dial.

    Args:
        bundle: "sr" or "translate".
        dataset_dir: BIDS folder.
        split: of the subjects.
        output_dir: receives ``<bundle>/sweep.csv``.
        work_dir: keeps what :func:`~research.paper.figures.mean_difference` needs.
        region: central box that is restored, in voxels; whole volumes when None.
        volumes: at most so many cases.
    """
    root = ROOT / "bundles" / BUNDLES[bundle]
    parser = ConfigParser()
    parser.read_config(str(ROOT / "research" / "configs" / bundle / "evaluate.json"))
    items = sharpest_volumes(dataset_dir, split) if bundle == "sr" else aligned_subjects(dataset_dir, split)
    weights = ROOT / "research" / "weights" / bundle
    given: dict[str, Any] = {
        "bundle_root": str(root),
        "dataset_dir": str(dataset_dir),
        "output_dir": str(output_dir / bundle),
        "items": items[:volumes],
        "settings": SETTINGS[bundle],
        "region": region,
        "dial": [[1, None, GAIN[bundle]]],
        "fusions": list(FUSIONS),
        "regression_weights": str(weights / "regression.pt"),
    }
    parser.update(given)
    parser["initialize"] = parser["initialize"][1:]  # what stands first looks at a command line
    parser.get_parsed_content("initialize")
    sweep: DialSweep = parser.get_parsed_content("sweep")
    sweep.realism = PaperFigures(work_dir / bundle, sweep.realism)
    return sweep

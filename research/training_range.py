"""Measure the training volumes for the warnings on scans that are unlike them.

    python -m research.training_range --dataset_dir BIDS_FOLDER

reads every contrast of every ``train`` subject and writes ranges and averages of a few numbers a volume
beside ``monai_diffens/transforms/unlike_training.py``: of all contrasts together, scaled as for
super-resolution, and of each by itself, scaled by its median as for translation, also as its low-resolution
scan shows it. Each range comes with the margin of its intensities: how far those of a training
site (column ``site``) lie outside of the range of the other sites, at most.
It prints that for every site, and for the ``val`` subjects, which have no part in it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged, Orientationd
from numpy.typing import NDArray

from monai_diffens.contrasts import CONTRASTS
from monai_diffens.data.training_volumes import participants
from monai_diffens.transforms.thick_slices import thick_slice
from monai_diffens.transforms.unlike_training import (
    BRIGHT_PERCENTILE,
    CONTRAST_REFERENCE,
    MEDIAN,
    REFERENCE,
    ScanTraits,
    TrainingRange,
)
from research.data_pack import contrast_path

__all__ = ["measure"]

LOW_RESOLUTION = ((4, 4, 4), (1, 1, 5))  # slice spacings in mm that a target is also given in

Traits = dict[str, list[ScanTraits]]  # of the volumes of each subject


def measure(
    dataset_dir: Path, split: str, contrasts: Sequence[str] = CONTRASTS, scaled_by: float = BRIGHT_PERCENTILE
) -> Traits:
    """Traits of every volume of a split, by subject.

    Args:
        dataset_dir: BIDS folder with a participants.tsv.
        split: value of column ``split``.
        contrasts: contrasts to read.
        scaled_by: percentile that the model's scaling makes 1; with the median, as for translation, volumes
            are also measured in the low resolutions that it is given.
    """
    load = Compose(
        [
            LoadImaged("image", reader="NibabelReader", ensure_channel_first=True),
            Orientationd("image", axcodes="RAS", labels=None),
        ]
    )
    found: Traits = {}
    for row in participants(dataset_dir):
        paths = {each: contrast_path(dataset_dir, row["participant_id"], each) for each in contrasts}
        if row["split"] != split:
            continue
        found[row["participant_id"]] = []
        for path in paths.values():
            if not path.is_file():
                continue
            volume: MetaTensor = load({"image": path})["image"]
            low = LOW_RESOLUTION if scaled_by == MEDIAN else ()
            shown = [volume, *(cast(MetaTensor, thick_slice(volume, factors)) for factors in low)]
            found[row["participant_id"]] += [ScanTraits.of(each, scaled_by) for each in shown]
    return found


def by_site(dataset_dir: Path, traits: Traits) -> Traits:
    """Traits by the ``site`` of their subjects; a subject whose site is not known is one by itself."""
    sites = {}
    for row in participants(dataset_dir):
        known = row.get("site") not in (None, "", "n/a")
        sites[row["participant_id"]] = row["site"] if known else row["participant_id"]
    found: Traits = {}
    for subject, scans in traits.items():
        found.setdefault(sites[subject], []).extend(scans)
    return {site: scans for site, scans in found.items() if scans}


def main() -> None:
    """Write the references and print what the margins come from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--only", choices=("together", "contrasts"), help="write one of the two alone")
    asked = parser.parse_args()
    if asked.only != "contrasts":
        together = {"any": examine(asked.dataset_dir, "all contrasts", CONTRASTS, BRIGHT_PERCENTILE)}
        save_ranges(together, REFERENCE)
    if asked.only != "together":
        each = {one: examine(asked.dataset_dir, one, [one], MEDIAN) for one in CONTRASTS}
        save_ranges(each, CONTRAST_REFERENCE)


def range_of_sites(
    sites: Mapping[str, list[ScanTraits]], scaled_by: float = BRIGHT_PERCENTILE
) -> TrainingRange:
    """Range over all sites, with the margin that a site left out would have needed.

    A user's scan comes from a hospital that training never saw. Each training site in turn plays it: how
    far do the intensities of its scans lie outside of the range of the other sites? The margin is the
    largest such excess.

    Args:
        sites: traits of the scans of each site, measured with this ``scaled_by``.
        scaled_by: see :meth:`ScanTraits.of`.

    Raises:
        ValueError: fewer than two sites.
    """
    if len(sites) < 2:
        raise ValueError(f"a margin needs scans of two sites or more, got {len(sites)}")
    excesses = []
    for left_out, scans in sites.items():
        others = [scan for name, theirs in sites.items() if name != left_out for scan in theirs]
        reference = range_over(others, scaled_by)
        excesses += [reference.intensity_excess(scan)[0] for scan in scans]
    together = range_over([scan for scans in sites.values() for scan in scans], scaled_by)
    return replace(together, intensity_margin=max(0.0, *excesses))


def range_over(scans: list[ScanTraits], scaled_by: float = BRIGHT_PERCENTILE) -> TrainingRange:
    """Summarise scans that were measured with this ``scaled_by``."""

    def ends(name: str) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        stacked = np.stack([getattr(scan, name) for scan in scans])
        return stacked.min(axis=0), stacked.max(axis=0)

    covariance = np.mean([scan.covariance for scan in scans], axis=0)
    skewness = np.mean([scan.skewness for scan in scans], axis=0)
    found = (ends("intensities"), ends("extent"), ends("spacing"))
    return TrainingRange(len(scans), scaled_by, *found, covariance, skewness)


def plain_range(found: TrainingRange) -> dict[str, Any]:
    """Numbers and lists for JSON, rounded to what the margins need."""
    return {
        name: value if isinstance(value, int) else np.round(np.array(value), 3).tolist()
        for name, value in asdict(found).items()
    }


def save_ranges(ranges: Mapping[str, TrainingRange], path: str | PathLike[str]) -> None:
    """Write a reference file, a range a line."""
    lines = [f" {json.dumps(name)}: {json.dumps(plain_range(found))}" for name, found in ranges.items()]
    Path(path).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def examine(dataset_dir: Path, title: str, contrasts: Sequence[str], scaled_by: float) -> TrainingRange:
    """Range and margin of the training volumes; prints how far left out sites and ``val`` lie outside."""
    train, val = (measure(dataset_dir, split, contrasts, scaled_by) for split in ("train", "val"))
    sites = by_site(dataset_dir, train)
    reference = range_of_sites(sites, scaled_by)
    for site, scans in sites.items():
        others = [scan for name, theirs in sites.items() if name != site for scan in theirs]
        report(f"{title}, {site} (left out)", range_over(others, scaled_by), scans)
    for subject, scans in val.items():
        report(f"{title}, {subject} (val)", reference, scans)
    print(f"{title}: margin {reference.intensity_margin:.3f}")
    return reference


def report(name: str, reference: TrainingRange, scans: list[ScanTraits]) -> None:
    """Print how far scans lie outside of a range, and the way the range's average shape says they lie."""
    excess = max(reference.intensity_excess(scan)[0] for scan in scans)
    size = max(reference.extent_excess(scan.extent) for scan in scans)
    turned = {reference.turned(scan) for scan in scans}
    print(f"{name}: intensities {excess:+.3f}, extent {size:+.1%}, turned {turned - {None} or 'none'}")


if __name__ == "__main__":
    main()

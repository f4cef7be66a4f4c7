"""Measure the training volumes for the warnings on scans that are unlike them.

    python -m monai_diffens.apps.training_range --dataset_dir BIDS_FOLDER

reads every contrast of every ``train`` subject, writes ranges and averages of a few numbers a volume to
``monai_diffens/transforms/training_range.json``, and prints how far each training subject lies outside of the
range of the others, and each ``val`` subject outside of all: margins are chosen from that.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from monai.transforms import Compose, LoadImaged, Orientationd

from monai_diffens.data.bids import CONTRASTS, contrast_path, participants
from monai_diffens.transforms.training_range import REFERENCE, ScanTraits, TrainingRange

__all__ = ["measure"]


def measure(dataset_dir: Path, split: str) -> dict[str, list[ScanTraits]]:
    """Traits of every volume of a split, by subject.

    Args:
        dataset_dir: BIDS folder with a participants.tsv.
        split: value of column ``split``.
    """
    load = Compose(
        [
            LoadImaged("image", reader="NibabelReader", ensure_channel_first=True),
            Orientationd("image", axcodes="RAS", labels=None),
        ]
    )
    found: dict[str, list[ScanTraits]] = {}
    for row in participants(dataset_dir):
        paths = [contrast_path(dataset_dir, row["participant_id"], contrast) for contrast in CONTRASTS]
        if row["split"] == split:
            found[row["participant_id"]] = [
                ScanTraits.of(load({"image": path})["image"]) for path in paths if path.is_file()
            ]
    return found


def main() -> None:
    """Write the reference and print the margins' grounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=REFERENCE)
    asked = parser.parse_args()
    train, val = measure(asked.dataset_dir, "train"), measure(asked.dataset_dir, "val")
    everyone = [scan for scans in train.values() for scan in scans]
    reference = TrainingRange.over(everyone)
    reference.save(asked.output)
    for subject, scans in train.items():
        others = [scan for other, theirs in train.items() if other != subject for scan in theirs]
        report(f"{subject} (left out)", TrainingRange.over(others), scans)
    for subject, scans in val.items():
        report(f"{subject} (val)", reference, scans)


def report(name: str, reference: TrainingRange, scans: list[ScanTraits]) -> None:
    """Print how far scans lie outside of a range."""
    excess = max(reference.intensity_excess(scan)[0] for scan in scans)
    low, high = reference.extent
    size = max(max((low / scan.extent).max(), (scan.extent / high).max()) for scan in scans) - 1
    turned = [reference.turned(scan) for scan in scans]
    print(f"{name}: intensities {excess:+.3f}, extent {size:+.1%}, turned {turned}")


if __name__ == "__main__":
    main()

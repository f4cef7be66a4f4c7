"""What registration, brain masks, kept in-plane detail and a told slice thickness are worth.

    python -m research.clinic registration --dataset_dir BIDS_FOLDER
    python -m research.clinic skull --dataset_dir BIDS_FOLDER --colin HEAD.nii.gz BRAIN.nii.gz
    python -m research.clinic in_plane --dataset_dir BIDS_FOLDER
    python -m research.clinic slices --dataset_dir BIDS_FOLDER

each write ``docs/results/clinic/<what>.csv``, a row a trial, and print the summary that stands on the page
there. Subjects are those of a split (``--split val`` for what is chosen; the page's own are test subjects).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from monai_diffens.data.training_volumes import participants
from research.clinic import in_plane, registration, skull, slices
from research.clinic.trials import write
from research.data_pack import contrast_path

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "clinic"


def named(dataset_dir: Path, split: str, contrasts: Sequence[str]) -> list[str]:
    """Subjects of a split that have these contrasts."""
    names = [row["participant_id"] for row in participants(dataset_dir) if row["split"] == split]
    return [n for n in names if all(contrast_path(dataset_dir, n, c).is_file() for c in contrasts)]


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["registration", "skull", "in_plane", "slices"])
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--output_dir", type=Path, default=RESULTS)
    parser.add_argument("--split", choices=["val", "test"], nargs="+", default=["test"])
    parser.add_argument("--subjects", type=int, default=5, help="at most so many of each split")
    parser.add_argument(
        "--degrees", type=int, nargs="+", choices=list(registration.MOVES), default=list(registration.MOVES)
    )
    parser.add_argument("--colin", type=Path, nargs=2, help="Colin27 with and without skull")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    path = asked.output_dir / f"{asked.what}.csv"
    needed = ("T1w", "T2w") if asked.what == "registration" else ()
    subjects = [
        name for split in asked.split for name in named(asked.dataset_dir, split, needed)[: asked.subjects]
    ]
    if asked.what == "registration":
        registration.summarise(write(registration.trials(asked.dataset_dir, subjects, asked.degrees), path))
    elif asked.what == "skull":
        skull.summarise(write(skull.trials(asked.dataset_dir, asked.colin), path))
    elif asked.what == "slices":
        slices.summarise(write(slices.trials(asked.dataset_dir, subjects), path))
    else:
        in_plane.summarise(write(in_plane.trials(asked.dataset_dir, subjects), path))


if __name__ == "__main__":
    main()

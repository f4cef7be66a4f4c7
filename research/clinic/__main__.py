"""What registration, brain masks and kept in-plane detail are worth.

    python -m research.clinic registration --dataset_dir BIDS_FOLDER
    python -m research.clinic skull --dataset_dir BIDS_FOLDER --colin HEAD.nii.gz BRAIN.nii.gz
    python -m research.clinic in_plane --dataset_dir BIDS_FOLDER

each write ``docs/results/clinic/<what>.csv``, a row a trial, and print the summary that stands on the page
there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from research.clinic import in_plane, registration, skull
from research.clinic.trials import write

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "clinic"


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["registration", "skull", "in_plane"])
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--output_dir", type=Path, default=RESULTS)
    parser.add_argument("--subjects", type=int, default=5)
    parser.add_argument("--colin", type=Path, nargs=2, help="Colin27 with and without skull")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    path = asked.output_dir / f"{asked.what}.csv"
    if asked.what == "registration":
        registration.summarise(write(registration.trials(asked.dataset_dir, asked.subjects), path))
    elif asked.what == "skull":
        skull.summarise(write(skull.trials(asked.dataset_dir, asked.colin), path))
    else:
        in_plane.summarise(write(in_plane.trials(asked.dataset_dir, asked.subjects), path))


if __name__ == "__main__":
    main()

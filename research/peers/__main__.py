"""This package beside what users would pick, on the same scans, in one run.

    python -m research.peers --dataset_dir BIDS_FOLDER

writes ``docs/results/peers/peers.csv``, a row a scan and program, and the page ``peers.md`` beside it. A
program that is not installed is left out, and named. Stopped, it goes on where it was. ECLARE trains on each
scan and has an environment of its own:

    python -m venv ECLARE_ENV && ECLARE_ENV/bin/pip install eclare==1.0.1
    python -m research.peers --dataset_dir BIDS_FOLDER --eclare ECLARE_ENV/bin/run-eclare
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from research.data_pack import sharp_volumes
from research.peers.programs import ECLARE_PATCHES, ROOT, programs
from research.peers.study import PLANES, PeerStudy, slice_settings
from research.tables.peer_report import write_peer_report

BUNDLE = ROOT / "bundles" / "diffensembler_sr"
MIN_SHARPNESS = 0.7  # thin volumes: truth along every axis


def main() -> None:
    """Run the study and write its page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--output_dir", type=Path, default=ROOT / "docs" / "results" / "peers")
    parser.add_argument("--split", choices=["val", "test"], default="test")
    parser.add_argument("--volumes", type=int, help="at most so many")
    parser.add_argument("--spacings", type=float, nargs="+", default=[3, 4, 5, 6], help="mm")
    parser.add_argument("--planes", nargs="+", choices=list(PLANES), default=["axial", "sagittal"])
    parser.add_argument("--region", type=int, nargs=3, help="central box in voxels; whole volumes without")
    parser.add_argument("--programs", nargs="+", help="names; all without")
    parser.add_argument("--bundle_root", type=Path, default=BUNDLE)
    parser.add_argument("--eclare", help="ECLARE's command run-eclare")
    parser.add_argument("--eclare_patches", type=int, default=ECLARE_PATCHES)
    parser.add_argument("--eclare_told", action="store_true", help="tell ECLARE the slices' thickness")
    parser.add_argument("--limit_s", type=float, default=3600, help="seconds a program may take for a scan")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    every = programs(asked.eclare, asked.eclare_patches, asked.eclare_told, asked.bundle_root)
    study = PeerStudy(
        sharp_volumes(asked.dataset_dir, asked.split, min_sharpness=MIN_SHARPNESS)[: asked.volumes],
        [program for program in every if not asked.programs or program.name in asked.programs],
        slice_settings(asked.spacings, asked.planes),
        asked.output_dir,
        asked.bundle_root / "models" / "model.pt",
        asked.limit_s,
        asked.region,
    )
    print(write_peer_report(study.run()))


if __name__ == "__main__":
    main()

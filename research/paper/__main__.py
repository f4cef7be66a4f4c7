"""The paper's table on open data, by one command.

    python -m research.paper --dataset_dir BIDS_FOLDER

restores the test subjects in every way (super-resolution, translation, both; hours), and writes
``docs/results/paper/paper.md``: PSNR, SSIM and realism in the paper's box and inside the brain, paired
bootstrap intervals, and the published rows. Stopped, it goes on where it was. With ``--split val --region 64
64 64 --volumes 1 --output_dir /tmp/paper`` it is a rehearsal of minutes.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from research.paper.sweeps import BUNDLES, ROOT, paper_sweep
from research.tables.paper_report import write_paper_report


def main() -> None:
    """Run both sweeps and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--split", choices=["val", "test"], default="test")
    parser.add_argument("--output_dir", type=Path, default=ROOT / "docs" / "results" / "paper")
    parser.add_argument("--work_dir", type=Path, default=ROOT / "runs" / "paper", help="some GB")
    parser.add_argument("--region", type=int, nargs=3, help="central box in voxels; whole volumes without")
    parser.add_argument("--volumes", type=int, help="at most so many cases of each bundle")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    tables = {}
    for bundle in BUNDLES:
        sweep = paper_sweep(
            bundle,
            asked.dataset_dir,
            asked.split,
            asked.output_dir,
            asked.work_dir,
            asked.region,
            asked.volumes,
        )
        tables[bundle] = sweep.run()
    where = f"Split {asked.split}; region in voxels: {asked.region or 'the whole volume'}."
    print(write_paper_report(tables, asked.work_dir, asked.output_dir / "paper.md", where))


if __name__ == "__main__":
    main()

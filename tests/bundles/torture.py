"""Kill a folder run again and again, run it to its end, and compare with a run that nobody disturbed.

    PYTHONPATH=tests python tests/bundles/torture.py --kills 20 --seed 0

Real processes (:mod:`forked`), real SIGKILL, pieces of the template brain and a copy of the bundle with
untrained weights.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bad_files import real_scan
from bundle_copies import copy_bundle
from forked import Command, inference

SHAPE = (20, 22, 5)  # becomes (20, 22, 25)
LONGEST_S = 600
FILES_A_KILL = 4  # at most so many files appear between two kills


class Proof(NamedTuple):
    """What was seen.

    Attributes:
        kills: processes killed while they worked.
        survivors: of them, those that left at least one result but not all.
        leftovers: temporary files that the kills left.
        rounds: fresh output folders that were used: a new one whenever all cases were done too soon.
        files: files compared in each round.
        different: names of files that differ from the undisturbed run's or are lost.
        remade: results that a later run wrote again although they were there.
    """

    kills: int
    survivors: int
    leftovers: int
    rounds: int
    files: int
    different: list[str]
    remade: list[str]


def make_scans(folder: Path, count: int) -> None:
    """Write tiny pieces of a scan with 5 mm slices."""
    folder.mkdir(parents=True)
    scan = real_scan(None)
    for number in range(count):
        x, y, z = number % 5 * 4, number % 3 * 7, number % 4
        scan.slicer[x : x + SHAPE[0], y : y + SHAPE[1], z : z + SHAPE[2]].to_filename(
            folder / f"case{number:02d}.nii.gz"
        )


def start(bundle: Path, scans: Path, out: Path, options: Sequence[str] = ()) -> Command:
    """Start the command over a folder."""
    words = inference(bundle, input=scans, output_dir=out, fusion="axial", report=False)
    return Command([*words, *options])


def contents(out: Path) -> dict[str, bytes]:
    """Name and bytes of every visible file."""
    return {path.name: path.read_bytes() for path in out.glob("[!.]*")}


def wait_for(process: Command, out: Path, more_than: int) -> bool:
    """Wait until more visible files than that are there; False when the process ended before."""
    end = time.monotonic() + LONGEST_S
    while time.monotonic() < end:
        if len(list(out.glob("[!.]*"))) > more_than:
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.02)
    raise TimeoutError("the run does nothing")


def torture(bundle: Path, work: Path, kills: int, seed: int, cases: int) -> Proof:
    """Kill ``kills`` runs at random moments, finish, compare.

    A run is killed a random part of a case's time after a random one of its first files came, so that kills
    hit reading, sampling and writing alike.
    """
    rng = random.Random(seed)
    scans, calm = work / "scans", work / "calm"
    make_scans(scans, cases)
    undisturbed = start(bundle, scans, calm)
    out, err = undisturbed.communicate(timeout=LONGEST_S)
    if undisturbed.returncode != 0:
        raise RuntimeError(f"the undisturbed run failed:\n{out}{err}")
    written = [path.stat().st_mtime for path in calm.glob("*.nii.gz")]
    pace = (max(written) - min(written)) / max(cases - 1, 1)
    expected = contents(calm)

    killed = survivors = leftovers = rounds = 0
    different: list[str] = []
    remade: list[str] = []
    while killed < kills:
        rounds += 1
        folder = work / f"round{rounds}"
        stamps: dict[str, int] = {}
        while killed < kills:
            process = start(bundle, scans, folder)
            present = len(list(folder.glob("[!.]*")))
            if wait_for(process, folder, present + rng.randrange(FILES_A_KILL)):
                time.sleep(rng.uniform(0, pace))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            there = sorted(folder.glob("*.nii.gz"))
            remade += [
                p.name for p in there if stamps.get(p.name, p.stat().st_mtime_ns) != p.stat().st_mtime_ns
            ]
            stamps |= {p.name: p.stat().st_mtime_ns for p in there}
            if process.returncode != -signal.SIGKILL:  # it had ended by itself
                break
            killed += 1
            survivors += 0 < len(there) < cases
            print(f"kill {killed}: {len(there)} of {cases} results there", flush=True)
            if len(there) == cases:
                break
        leftovers += len(list(folder.glob(".part-*")))
        process = start(bundle, scans, folder)
        out, err = process.communicate(timeout=LONGEST_S)
        if process.returncode != 0:
            raise RuntimeError(f"the run to the end failed:\n{out}{err}")
        found = contents(folder)
        different += [
            name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
        ]
        now = {p.name: p.stat().st_mtime_ns for p in folder.glob("*.nii.gz")}
        remade += [name for name, stamp in stamps.items() if now.get(name) != stamp]
    return Proof(killed, survivors, leftovers, rounds, len(expected), sorted(different), sorted(remade))


def main() -> int:
    """Run and print what was proved."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=12)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        proof = torture(copy_bundle(work / "bundle"), work, asked.kills, asked.seed, asked.cases)
    good = not proof.different and not proof.remade
    print(
        f"{proof.kills} kills with SIGKILL (seed {asked.seed}), {proof.survivors} of them with some but not "
        f"all of {asked.cases} results there, in {proof.rounds} output folders; they left {proof.leftovers} "
        f"temporary files.\nAfter the last run of each folder {proof.files} files are there: "
        f"{len(proof.different)} differ from the undisturbed run or are lost, "
        f"{len(proof.remade)} finished results were written again."
    )
    print("identical, none lost" if good else f"NOT identical: {proof.different} {proof.remade}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

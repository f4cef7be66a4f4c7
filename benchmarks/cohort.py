"""A cohort with workers: memory that stays flat, a worker killed, throughput against one process.

    python benchmarks/cohort.py [--cases 1000] [--workers 3] [--weights stub|shipped]

Scans are made up and tiny, and read, checked, restored and written as any; with a stub for a network nearly
all of the time is what surrounds it. Not a bench_*.py: `make bench` need not wait for a thousand cases.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
from measurement import ROOT, brain, machine, save

from monai_diffens.inference import open_inference, run_inference
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.weights import save_weights
from monai_diffens.workers import Crew, absolute, job_of, workers_of

BUNDLE = ROOT / "bundles" / "diffensembler_sr"
STUB = {"channels": [8, 8, 16], "norm_num_groups": 4, "num_head_channels": 8}
SHAPE = (40, 44, 40)  # in 5 mm slices
NIGHT_S = 12 * 3600
SAMPLES = 20  # of memory, over the run


def main() -> None:
    """Run the cohort by workers, and part of it by one process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--alone", type=int, default=50, help="cases of the run by one process")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--weights", choices=["stub", "shipped"], default="stub")
    parser.add_argument("--no_save", action="store_true", help="do not write docs/performance/cohort.json")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        bundle = stub_bundle(work) if asked.weights == "stub" else BUNDLE
        make_scans(work / "some", asked.alone)
        make_scans(work / "all", asked.cases)
        alone = run(bundle, work / "some", work / "one", None)
        shared = run(bundle, work / "all", work / "many", asked.workers)
        same = digests(work / "one").items() <= digests(work / "many").items()
    content = {
        "machine": machine(),
        "weights": asked.weights,
        "workers": asked.workers,
        "alone": alone,
        "shared": shared,
        "same_files": same,
        "speed_up": shared["cases_a_second"] / alone["cases_a_second"],
        "cases_a_night": shared["cases_a_second"] * NIGHT_S,
    }
    print(json.dumps(content, indent=1))
    if not asked.no_save:
        save("cohort", content)
    if not same or shared["failed"] or alone["failed"]:
        raise SystemExit("NOT as one process: files differ, or cases failed")


def run(bundle: Path, scans: Path, out: Path, workers: int | None) -> dict[str, Any]:
    """Run over a folder; with workers, one is killed when half of the cases are done."""
    options = absolute({"input": str(scans), "output_dir": str(out), "report": False})
    workflow = open_inference(bundle, options)
    count = len(list(scans.iterdir()))
    begun, watch = time.perf_counter(), Watch(count, kill=workers is not None)
    if workers is not None:
        crew = workers_of(workers, None)
        Crew(job_of(bundle, options), crew, watch).take_over(workflow)
    cases, status = run_inference(workflow, watch if workers is None else lambda _: None)
    seconds = time.perf_counter() - begun
    return {
        "cases": count,
        "failed": len(cases.failures) + status,
        "killed": watch.killed,
        "seconds": seconds,
        "cases_a_second": count / seconds,
        **watch.memory(),
    }


class Watch:
    """Called as each case ends: notes memory, and kills a worker at half time.

    Args:
        count: of cases.
        kill: whether to kill one.
    """

    def __init__(self, count: int, kill: bool) -> None:
        self.count, self.kill, self.killed, self.done = count, kill, 0, 0
        self.seen: list[tuple[float, float]] = []  # MB of this process, and of the largest worker

    def __call__(self, _: Any) -> None:
        """Note a case."""
        self.done += 1
        workers = [child for child in psutil.Process().children(recursive=True) if is_worker(child)]
        if self.kill and not self.killed and self.done >= self.count // 2:
            os.kill(workers[0].pid, signal.SIGKILL)
            self.killed = 1
        elif self.done % max(1, self.count // SAMPLES) == 0:
            largest = max((resident(child) for child in workers), default=0.0)
            self.seen.append((resident(psutil.Process()), largest))

    def memory(self) -> dict[str, float]:
        """MB at a quarter of the run and at its end."""
        quarter, end = self.seen[len(self.seen) // 4], self.seen[-1]
        names = ("command_mb", "worker_mb")
        figures = {f"{name}_at_a_quarter": value for name, value in zip(names, quarter, strict=True)}
        return figures | {f"{name}_at_the_end": value for name, value in zip(names, end, strict=True)}


def is_worker(process: psutil.Process) -> bool:
    """Whether it is one of dask's processes."""
    try:
        return any("spawn_main" in word for word in process.cmdline())
    except psutil.NoSuchProcess:
        return False


def resident(process: psutil.Process) -> float:
    """Its memory in MB; 0 where it has gone."""
    try:
        return process.memory_info().rss / 1e6
    except psutil.NoSuchProcess:
        return 0.0


def make_scans(folder: Path, count: int) -> None:
    """Write made-up scans with 5 mm slices; the first ones are the same whatever the count."""
    folder.mkdir()
    for number in range(count):
        fine = brain(SHAPE, number)[0, 0].numpy() * 300
        thick = fine.reshape(*SHAPE[:2], SHAPE[2] // 5, 5).mean(-1)
        image = nib.Nifti1Image(thick.astype(np.float32), np.diag([1, 1, 5, 1]))
        image.header.set_xyzt_units("mm")
        image.to_filename(folder / f"case{number:04d}.nii.gz")


def stub_bundle(folder: Path) -> Path:
    """The bundle's configs with a very small network, not trained."""
    copy = folder / BUNDLE.name
    shutil.copytree(BUNDLE / "configs", copy / "configs")
    path = copy / "configs" / "inference.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["network_def"] |= STUB
    path.write_text(json.dumps(config), encoding="utf-8")
    options = {name: value for name, value in config["network_def"].items() if name != "_target_"}
    save_weights(DiffEnsembler(**options).state_dict(), copy / "models" / "model.pt")
    return copy


def digests(out: Path) -> dict[str, str]:
    """SHA-256 of each case's files by name."""
    files = [path for path in out.glob("case*") if path.is_file()]
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    main()

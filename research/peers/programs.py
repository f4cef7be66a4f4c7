"""Programs that take a thick-sliced scan and write a fine one, and what running them costs.

Each is a command of its own, as its users run it, ours among them: quality, seconds and memory then mean the
same for all.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast

import nibabel as nib

from research.peers import launch

ROOT = Path(__file__).parents[2]
ECLARE, ECLARE_PATCHES = "ECLARE", 1_000_000  # patches it trains on by default
FUSED, MEAN = "fused", "mean of planes"


class Cost(NamedTuple):
    """What a program took.

    Attributes:
        seconds: wall time.
        cpu_s: processor time, its children's too.
        peak_mb: most memory that it held, in MB.
        outcome: "done", or why there is no result.
    """

    seconds: float
    cpu_s: float
    peak_mb: float
    outcome: str


@dataclass(frozen=True)
class Program:
    """A way from a thick scan to a fine one.

    Attributes:
        name: in the table.
        command: (scan, folder of results) -> words of the command line.
        result: (scan, folder of results) -> path of what it writes.
        why_not: what is missing on this machine; empty where nothing is.
        environment: that it wants beside this process's.
    """

    name: str
    command: Callable[[Path, Path], Sequence[str]]
    result: Callable[[Path, Path], Path]
    why_not: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


def programs(
    eclare: str | None = None,
    eclare_patches: int = ECLARE_PATCHES,
    eclare_told: bool = False,
    bundle_root: Path | None = None,
) -> list[Program]:
    """All of them, those that are not installed too.

    Args:
        eclare: its command ``run-eclare``, which has an environment of its own (it wants scipy 1.11.4); the
            one on the path when None.
        eclare_patches: that it trains on.
        eclare_told: tell it the slices' thickness; its own estimate takes thousands of steps.
        bundle_root: bundle of our rows; the one of this clone when None.
    """
    found = eclare or shutil.which("run-eclare") or ""
    there = bool(found) and Path(found).is_file()
    short = f", {eclare_patches} patches" if eclare_patches != ECLARE_PATCHES else ""
    eclare_name = ECLARE + short + (", told the thickness" if eclare_told else "")
    options = ["--n-patches", str(eclare_patches), "--suffix", "_eclare", "--gpu-id", "-1"]
    return [
        *(interpolation(kind) for kind in ("cubic", "Lanczos")),
        Program(
            eclare_name,
            lambda scan, out: [
                *(found, "--in-fpath", str(scan), "--out-dir", str(out), *options),
                *(thickness(scan) if eclare_told else ()),
            ],
            lambda scan, out: out / scan.name.replace(".nii", "_eclare.nii"),
            "" if there else "no command run-eclare: install eclare==1.0.1 in an environment of its own",
        ),
        ours(MEAN, bundle_root, "--fusion", "mean"),
        ours(FUSED, bundle_root),
    ]


def thickness(scan: Path) -> list[str]:
    """How ECLARE is told that slices have no gaps; in pixels, whose profile it takes for Gaussian."""
    spacing = [float(size) for size in cast(nib.Nifti1Image, nib.load(scan)).header.get_zooms()[:3]]
    return ["--relative-slice-thickness", f"{max(spacing) / min(spacing):g}"]


def interpolation(kind: str) -> Program:
    """Interpolation to 1 mm, "cubic" or "Lanczos"."""
    return Program(
        kind,
        lambda scan, out: [
            *(sys.executable, "-m", "research.peers.interpolation"),
            *(kind.lower(), str(scan), str(out / "fine.nii.gz")),
        ],
        lambda scan, out: out / "fine.nii.gz",
        environment={"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )


def ours(name: str, bundle_root: Path | None, *options: str) -> Program:
    """This package's command, at its defaults but for some options."""
    root = ROOT / "bundles" / "diffensembler_sr" if bundle_root is None else bundle_root
    fixed = ["--bundle_root", str(root.absolute()), "--no_report", "--quiet"]
    return Program(
        name,
        lambda scan, out: [
            *(sys.executable, "-c", "from monai_diffens.cli import main; main()"),
            *("sr", str(scan), "-o", str(out), *fixed, *options),
        ],
        lambda scan, out: out / scan.name.replace(".nii.gz", "_sr.nii.gz"),
        environment={"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )


def run(program: Program, scan: Path, out: Path, limit_s: float) -> Cost:
    """Run a program on a scan.

    Args:
        program: installed.
        scan: NIfTI file.
        out: folder of the results; made where it is missing.
        limit_s: seconds after which it is ended.
    """
    out.mkdir(parents=True, exist_ok=True)
    note, began = out / "took.json", time.perf_counter()
    command = [sys.executable, "-S", str(Path(launch.__file__)), str(note), *program.command(scan, out)]
    with (out / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, **program.environment},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # and all that it started
            process.wait()
            return Cost(time.perf_counter() - began, math.nan, math.nan, f"no result in {limit_s:g} s")
    seconds, took = time.perf_counter() - began, json.loads(note.read_text(encoding="utf-8"))
    there = status == 0 and program.result(scan, out).is_file()
    return Cost(seconds, **took, outcome="done" if there else f"failed, status {status}")

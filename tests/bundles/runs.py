"""A finished run of a bundle's command over many cases, asked case by case."""

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np


class Run(NamedTuple):
    """A finished run over a folder or a list.

    Attributes:
        scans: folder of the inputs.
        out: folder of the results.
        suffix: of the results' names.
        stdout: what it printed.
        stderr: what it printed there.
        returncode: its exit status.
    """

    scans: Path
    out: Path
    suffix: str
    stdout: str
    stderr: str
    returncode: int

    @classmethod
    def of(cls, done: subprocess.CompletedProcess[str], scans: Path, out: Path, suffix: str) -> "Run":
        return cls(scans, out, suffix, done.stdout, done.stderr, done.returncode)

    def reason(self, name: str, told: str = "") -> str:
        """The one line with which a case was rejected; ``told``: what the line calls it instead."""
        start = f"rejected: {told or name}"
        lines = [line for line in self.stdout.splitlines() if line.startswith((f"{start}.", f"{start}:"))]
        assert len(lines) == 1, self.stdout + self.stderr
        assert not list(self.out.glob(f"{name}_*")), "a result was written"
        return lines[0].removeprefix("rejected: ")

    def result(self, name: str) -> nib.Nifti1Image:
        return nib.load(self.out / f"{name}_{self.suffix}.nii.gz")

    def facts(self, name: str) -> dict[str, Any]:
        """The result's JSON file."""
        return json.loads((self.out / f"{name}_{self.suffix}.json").read_text())

    def warning(self, name: str, word: str) -> str:
        """The one warning with this word, in the sidecar and in the log alike."""
        warnings = self.facts(name)["Warnings"]
        found = [line for line in warnings if word in line]
        assert len(found) == 1, warnings
        assert f"WARNING {name}: {found[0]}" in self.stdout
        return found[0]

    def tells_the_truth(self, done: int, rejected: int) -> None:
        """The summary counts right; nothing but it was told, and no half-written file is left."""
        told = self.stdout + self.stderr
        summary = f"{done} done, 0 skipped (result already there), {rejected} rejected, 0 failed"
        assert summary in self.stdout, told
        assert self.stdout.count("\nrejected: ") == rejected and self.returncode == (rejected > 0)
        assert "Traceback" not in told
        assert not list(self.out.glob(".*"))


def assert_in_place(result: nib.Nifti1Image, scan: nib.Nifti1Image, tolerance: float = 0.05) -> None:
    """The centres of both lie at one place in mm."""
    centres = [nib.affines.apply_affine(i.affine, (np.array(i.shape) - 1) / 2) for i in (result, scan)]
    np.testing.assert_allclose(*centres, atol=tolerance)

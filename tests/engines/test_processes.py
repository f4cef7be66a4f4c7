"""Several processes give what one gives, each does its part, and nobody does a case twice."""

import os
import subprocess
import sys
from pathlib import Path

import forked
import nibabel as nib
import numpy as np
import pytest
import torch
from forked import inference
from two_processes import in_two

from monai_diffens.data.cases import CaseFolder
from monai_diffens.engines import processes
from monai_diffens.engines.processes import Place
from monai_diffens.messages import InputRejected, say

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
SRUN = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1"}


def launch(command: list[str]) -> str:
    """What a command prints."""
    known = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=known, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def folder_of_scans(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        voxels = np.random.default_rng(number).uniform(50, 500, (20, 16, 4)).astype(np.float32)
        nib.save(nib.Nifti1Image(voxels, np.diag([1, 1, 5, 1.0])), folder / f"scan{number}.nii.gz")
    return folder


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Place(0, 1, 0)),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, Place(1, 2, 1)),
        (SRUN, Place(3, 4, 1)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, Place(0, 1, 0)),  # the job's script itself
        ({"RANK": "0", "WORLD_SIZE": "1"} | SRUN, Place(0, 1, 0)),  # torchrun below srun
    ],
    ids=str,
)
def test_place_is_what_the_launcher_says(environment, expected):
    assert processes.place(environment) == expected


@pytest.mark.parametrize(
    ("rank", "count"), [("x", "2"), ("5", "2"), ("0", "0"), ("-1", "2"), ("0", ""), ("1.5", "2")]
)
def test_no_place_among_processes_is_refused(rank, count):
    """Cases would be left out, or the run would end in a traceback."""
    with pytest.raises(InputRejected) as refused:
        processes.place({"RANK": rank, "WORLD_SIZE": count})
    told = {"rank": "RANK", "value": rank, "size": "WORLD_SIZE", "count": count}
    assert str(refused.value) == say("no_place", **told)


def test_shares_are_told_apart(monkeypatch):
    for name, value in SRUN.items():
        monkeypatch.setenv(name, value)
    assert processes.case_share("cases") == (3, 4) and processes.case_share("slices") == (0, 1)
    assert processes.writes("cases") and not processes.writes("slices")
    processes.start("cases")  # srun: nobody to meet
    assert not torch.distributed.is_initialized()
    with pytest.raises(InputRejected, match="--share slices: the processes cannot find each other"):
        processes.start("slices")
    with pytest.raises(InputRejected, match=r"--share voxels: no such way .* use cases or slices"):
        processes.start("voxels")


def test_every_case_is_somebody_s_and_what_has_no_record_is_done_again(tmp_path):
    scans, output = folder_of_scans(tmp_path / "in", 5), tmp_path / "out"

    def cases(rank: int) -> list[str]:
        return [item["case"] for item in CaseFolder(scans, output, share=(rank, 2)).items]

    assert cases(0) == ["scan0", "scan2", "scan4"] and cases(1) == ["scan1", "scan3"]
    output.mkdir()
    for done in ("scan0", "scan1", "scan2"):  # then the second process died
        (output / f"{done}_sr.nii.gz").write_bytes(b"result")
    assert cases(0) == ["scan0", "scan2", "scan4"]  # without a record of what made them they are done again


@pytest.mark.slow
def test_two_processes_share_a_volume(tmp_path):
    for each in in_two(["shared_volume", str(tmp_path)]):
        _, errors = each.communicate()
        assert each.returncode == 0, errors[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert torch.equal(first["shared"]["volume"], second["shared"]["volume"])
    torch.testing.assert_close(first["shared"]["volume"], first["alone"]["volume"], rtol=0, atol=1e-5)
    for plane, total in first["alone"]["slices"].items():
        assert first["shared"]["slices"][plane] == second["shared"]["slices"][plane] == total // 2
    for part in (first, second):  # of the fusion a halo more than half
        assert sum(part["shared"]["voxels"]) < 0.9 * sum(part["alone"]["voxels"])
    assert first["writes"] and not second["writes"]


def command(folder: Path, output: Path, *options: str) -> list[str]:
    bundle = ROOT / "bundles" / "diffensembler_sr"
    return [*inference(bundle, input=folder, output_dir=output, amp=False), *options]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> tuple[Path, Path]:
    """Three scans, and what one process makes of them."""
    folder = tmp_path_factory.mktemp("alone")
    scans, output = folder_of_scans(folder / "in", 3), folder / "out"
    result = forked.run(command(scans, output))
    assert result.returncode == 0, result.stderr[-3000:]
    return scans, output


@pytest.mark.slow
@pytest.mark.parametrize("share", ["cases", "slices"])
def test_the_bundle_runs_in_two_processes(alone, tmp_path, share):
    scans, expected = alone
    words = command(scans, tmp_path, "--share", share)
    if share == "cases":  # as a user starts it
        printed = launch([*TORCHRUN, "-m", *words])
    else:
        both = in_two(words)
        outs = [each.communicate() for each in both]
        assert [each.returncode for each in both] == [0, 0], outs
        printed = "".join(out for out, _ in outs)
    told = [line for line in printed.splitlines() if " done, " in line]
    wanted = ["process 1 of 2: 2 done", "process 2 of 2: 1 done"] if share == "cases" else ["3 done"]
    assert [line.split(",")[0] for line in sorted(told)] == wanted
    names = sorted(path.name for path in expected.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    volumes = [name for name in names if name.endswith(".nii.gz")]
    assert len(volumes) == 3
    for name in volumes:
        shared, whole = (nib.load(folder / name).get_fdata() for folder in (tmp_path, expected))
        np.testing.assert_allclose(shared, whole, rtol=0, atol=1e-3 * whole.max())

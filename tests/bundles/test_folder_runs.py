"""Folder runs that are disturbed: killed, interrupted, doubled, out of room; real processes on tiny scans."""

import resource
import shutil
import signal
import subprocess
from pathlib import Path

import nibabel as nib
import pytest
import torture
from forked import inference, run

pytestmark = pytest.mark.slow

CASES, KILLS = 5, 3
ROOM = 16_384  # bytes; a result needs 20 x 22 x 25 x 4


@pytest.fixture(scope="module")
def killed(bundle, tmp_path_factory) -> tuple[torture.Proof, Path]:
    """What a few kills showed, and the folder with the scans and an undisturbed run's results."""
    work = tmp_path_factory.mktemp("torture")
    return torture.torture(bundle, work, KILLS, seed=1, cases=CASES), work


@pytest.mark.bad_input(32)
def test_killed_runs_end_as_an_undisturbed_one(killed, got):
    proof, _ = killed
    assert proof.kills == KILLS and proof.survivors >= 1
    assert proof.files == 2 * CASES
    assert proof.different == [] and proof.remade == []
    got(f"{proof.kills} kills (-9), {proof.files} files identical, none lost, none written again")


@pytest.mark.bad_input(33)
def test_two_runs_on_one_folder(killed, bundle, tmp_path, got):
    """They start together, so that both work on every case; one reads in a process of its own."""
    _, work = killed
    both = [
        torture.start(bundle, work / "scans", tmp_path / "out", options)
        for options in ((), ("--dataloader#num_workers", "1"))
    ]
    told = [process.communicate(timeout=torture.LONGEST_S) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert torture.contents(tmp_path / "out") == torture.contents(work / "calm")
    assert not list((tmp_path / "out").glob(".*"))
    got(f"both exit 0, {2 * CASES} files identical to those of one run alone")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_whole_files_and_says_so(killed, bundle, tmp_path, number):
    _, work = killed
    process = torture.start(bundle, work / "scans", tmp_path / "out")
    assert torture.wait_for(process, tmp_path / "out", 1)
    process.send_signal(number)
    out, err = process.communicate(timeout=torture.LONGEST_S)
    assert process.returncode == 128 + number, out + err
    assert err.splitlines()[-1].startswith(f"interrupted by {number.name}: finished cases are kept")
    assert "Traceback" not in out + err
    there = torture.contents(tmp_path / "out")
    expected = torture.contents(work / "calm")
    assert there and len(there) < len(expected)
    assert all(expected[name] == data for name, data in there.items())
    assert not list((tmp_path / "out").glob(".*"))


def without_room(kind: str, bundle: Path, scan: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Do a run whose output folder takes less than a result."""
    words = inference(bundle, input=scan, output_dir=out)
    if kind == "file size limit":
        return run(words, limits={resource.RLIMIT_FSIZE: ROOM})
    option = "ro" if kind == "read-only disk" else f"size={ROOM}"
    out.mkdir()
    return run(["small_disk", out, option, *words])


def may_mount(folder: Path) -> bool:
    """Whether this machine lets us mount a small disk that nobody else sees."""
    if not shutil.which("unshare"):
        return False
    tried = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", str(folder)]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


@pytest.mark.bad_input(31)
@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("file size limit", "File too large"),
        ("full disk", "No space left on device"),
        ("read-only disk", "Read-only file system"),
    ],
)
def test_no_room_is_told_before_sampling(killed, bundle, tmp_path, got, kind, why):
    if kind != "file size limit" and not may_mount(tmp_path):
        pytest.skip("mounting a small disk needs rights that this machine does not give")
    _, work = killed
    done = without_room(kind, bundle, work / "scans" / "case00.nii.gz", tmp_path / "out")
    line = done.stderr.splitlines()[-1]
    got(line.replace(str(tmp_path), ""))
    assert done.returncode == 1
    assert f"cannot write to this output folder ({why}); choose another or free space" in line
    assert "Traceback" not in done.stdout + done.stderr and "denoising" not in done.stderr
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_results_are_volumes(killed):
    _, work = killed
    for path in (work / "calm").glob("*.nii.gz"):
        assert nib.load(path).get_fdata().max() > 0

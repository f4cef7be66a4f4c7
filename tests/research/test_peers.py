"""The peers: real interpolations as commands, programs that fail or are late, and the page."""

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_diffens.transforms.registration import Scan, finer_grid
from research.clinic.trials import central_box, thick
from research.peers.interpolation import cubic, lanczos
from research.peers.programs import FUSED, Program, interpolation, programs, run
from research.peers.study import PeerStudy, figures, slice_settings, whole_slices
from research.studies.tables import read_table
from research.tables.peer_report import write_peer_report

SHAPE = (24, 28, 26)


def program(name: str, code: str) -> Program:
    """A command that runs Python code on the scan and the result's path."""
    return Program(
        name,
        lambda scan, out: [sys.executable, "-c", code, str(scan), str(out / "x.nii.gz")],
        lambda scan, out: out / "x.nii.gz",
    )


@pytest.fixture
def volume(tmp_path) -> Path:
    """A smooth ball on 0."""
    axes = np.meshgrid(*(np.linspace(-1.2, 1.2, side) for side in SHAPE), indexing="ij")
    values = (sum(axis**2 for axis in axes) < 1) * (300 + 60 * np.sin(9 * axes[2]) + 40 * axes[0] * axes[1])
    path = tmp_path / "ball_T1w.nii.gz"
    nib.Nifti1Image(values.astype(np.float32), np.diag([1, 1, 1, 1])).to_filename(path)
    return path


@pytest.mark.parametrize(("way", "error"), [(cubic, 0.002), (lanczos, 0.013)])
def test_interpolations_follow_a_wave(way, error):
    """A wave of 8 slices, which is far below what slices can show."""
    wave = 2 + np.sin(2 * np.pi * np.arange(16) / 8)[None, None] * np.ones((6, 7, 1))
    scan = Scan(wave.astype(np.float32), np.diag([1, 1, 4, 1]))
    affine, shape = finer_grid(scan, np.array([1.0, 1.0, 1.0]))
    places = (affine[2, 3] + np.arange(shape[2])) / 4
    found = way(scan, affine, shape)
    assert shape == (6, 7, 64)
    inner = slice(14, -14)
    np.testing.assert_allclose(found[3, 3, inner], (2 + np.sin(2 * np.pi * places / 8))[inner], atol=error)
    np.testing.assert_allclose(found, np.broadcast_to(found[:1, :1], shape), atol=1e-5)


def test_whole_slices_leave_one_fine_grid():
    scan = Scan(np.arange(17.0)[None, None] * np.ones((5, 5, 1)), np.eye(4))
    cut = whole_slices(scan, 2, 5)
    assert cut.values.shape == (5, 5, 15) and cut.affine[2, 3] == 1 and cut.values[0, 0, 0] == 1
    low = thick(cut, (1, 1, 5))
    affine, shape = finer_grid(low, np.ones(3))
    assert shape == cut.values.shape
    np.testing.assert_allclose(affine, cut.affine, atol=1e-6)
    assert central_box(scan, None) is scan


def test_figures_know_the_truth_and_mind_the_grid(volume):
    truth = Scan(np.asarray(nib.load(volume).dataobj), np.eye(4))
    assert figures(truth, truth)["hfen"] == 0
    moved = Scan(truth.values, truth.affine @ nib.affines.from_matvec(np.eye(3), [0, 0, 2]))
    assert figures(moved, truth)["psnr_brain"] < 30


def test_a_run_tells_what_became_of_it(volume, tmp_path):
    spent = program("spent", "import time\nwhile time.process_time() < .5: pass\nb = bytearray(200_000_000)")
    cost = run(spent, volume, tmp_path / "a", 60)
    assert cost.outcome == "failed, status 0" and cost.cpu_s > 0.4
    assert 200 < cost.peak_mb < 250  # not that of this process
    assert run(program("ends", "exit(3)"), volume, tmp_path / "b", 60).outcome == "failed, status 3"
    late = run(program("late", "import time; time.sleep(60)"), volume, tmp_path / "c", 0.5)
    assert late.outcome == "no result in 0.5 s" and late.seconds < 20


def test_what_is_not_installed_says_so(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    missing = {each.name for each in programs() if each.why_not}
    assert missing == {"ECLARE"}
    assert not any(each.why_not for each in programs(sys.executable))
    assert "ECLARE, 640 patches" in [each.name for each in programs(eclare_patches=640)]


def test_the_study_measures_goes_on_and_writes_its_page(volume, tmp_path):
    """Ours is played by a program that gives a blurred scan: cubic must be told as better."""
    blur = (
        "import sys, nibabel as nib, numpy as np; s = nib.load(sys.argv[1])\n"
        "flat = np.full((24, 28, 24), 150, 'f4')\n"
        "nib.Nifti1Image(flat, s.affine @ np.diag([1, 1, 0.25, 1])).to_filename(sys.argv[2])"
    )
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"weights")
    every = [
        interpolation("cubic"),
        program(FUSED, blur),
        program("broken", "exit(1)"),
        Program("absent", lambda scan, out: [], lambda scan, out: out, "not installed"),
    ]
    items = [{"label": str(volume), "case": "ball"}]
    study = PeerStudy(items, every, slice_settings([4], ["axial"]), tmp_path / "out", weights, 120)
    rows = read_table(study.run())
    assert [(row["method"], row["outcome"]) for row in rows] == [
        ("cubic", "done"),
        (FUSED, "done"),
        ("broken", "failed, status 1"),
    ]
    assert {row["setting"] for row in rows} == {"4 mm axial"}
    assert float(rows[0]["psnr_brain"]) > float(rows[1]["psnr_brain"]) + 5
    assert (rows[0]["weights"], len(rows[1]["weights"])) == ("", 12)
    page = write_peer_report(study.table).read_text()
    assert "4 mm axial: cubic, PSNR" in page and "broken on ball, 4 mm axial: failed, status 1." in page
    before = study.table.read_bytes()
    PeerStudy(items, every, slice_settings([4], ["axial"]), tmp_path / "out", weights, 120).run()
    assert study.table.read_bytes() == before
    weights.write_bytes(b"other weights")
    anew = PeerStudy(items, [every[0]], slice_settings([4], ["axial"]), tmp_path / "out", weights, 120)
    assert [row["method"] for row in read_table(anew.run())] == ["cubic", "broken"]

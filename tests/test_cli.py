"""The command ``diffens``, in process: what it prints, its statuses, and that mistakes leave nothing."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from monai_diffens.cli import app
from monai_diffens.cli_options import NOT_USABLE, SOME_FAILED, STATUSES, WRONG_USE
from monai_diffens.cli_runs import run_cases
from monai_diffens.data import writer
from monai_diffens.inference import Interrupted
from monai_diffens.messages import say
from monai_diffens.options import OPTIONS, QUALITIES

ROOT = Path(__file__).parents[1] / "bundles"
LONGEST_HELP = 25  # lines


def diffens(*words: object, status: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == status, result.output
    return result


@pytest.fixture
def scan(tmp_path) -> Path:
    """A thick-sliced ball, 24 x 28 x 6 voxels of 1 x 1 x 5 mm."""
    grid = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in (24, 28, 6)), indexing="ij")
    ball = (sum(axis**2 for axis in grid) < 1) * (300 + 200 * grid[0])
    path = tmp_path / "ball_T1w.nii.gz"
    nib.Nifti1Image(ball.astype(np.float32), np.diag([1, 1, 5, 1])).to_filename(path)
    return path


def test_help_is_short_and_lists_commands_and_statuses():
    out = diffens("--help").stdout
    assert len(out.splitlines()) <= LONGEST_HELP
    assert {"sr", "translate", "check", "view", "demo", "info", "bundle"} <= set(out.split())
    assert set(STATUSES.split()) <= set(out.split())


@pytest.mark.parametrize("task", ["sr", "translate"])
def test_help_of_a_task_tells_every_option_with_its_default_and_unit(task):
    config = json.loads((ROOT / f"diffensembler_{task}" / "configs" / "inference.json").read_text())
    text = " ".join(diffens(task, "--help").stdout.split())
    for option in OPTIONS:
        if option.name in config and option.name not in ("input", "output_dir"):
            shown = text[text.index(f"--{option.name} ") :]
            shown = shown[: shown.index("]") + 1]
            assert "default: " in shown and option.unit in shown, shown
    assert all(name in text for name in QUALITIES)


@pytest.mark.parametrize("words", [["--help"], ["sr", "--help"], ["bundle", "--help"]])
def test_help_imports_nothing_heavy(words):
    heavy = "torch monai numpy nibabel scipy matplotlib".split()
    code = (
        "import sys; from monai_diffens.cli import app\n"
        f"try: app({words!r})\nfinally: print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "[]")


@pytest.mark.parametrize(
    "words",
    [
        ["--num_step", "3"],
        ["--num-steps", "0"],
        ["--num_steps", "2.5"],
        ["--fusion", "Axial"],
        ["--amp", "maybe"],
        ["--max_memory", "8GB"],
        ["--device", "gpu9"],
        ["--restart", "-7"],
        ["--quality", "best"],
        ["--quality", "fast", "--num_steps", "2"],
        ["--plane_weights", "axial=0,coronal=0,sagittal=0"],
        ["--volume"],
        ["--force=no"],
        ["surplus"],
    ],
    ids=" ".join,
)
def test_wrong_use_is_one_line_before_anything_is_written(scan, tmp_path, words):
    out = tmp_path / "out"
    result = diffens("translate", scan, "-o", out, *words, status=WRONG_USE)
    assert result.stderr.count("\n") == 1 and not result.stdout and not out.exists()


def test_paths_that_do_not_serve(scan, tmp_path):
    out = tmp_path / "out"
    assert diffens("sr", "nowhere.nii", "-o", out, status=WRONG_USE).stderr == (
        say("input_missing", name="nowhere.nii") + "\n"
    )
    assert diffens("sr", scan, "-o", scan, status=WRONG_USE).stderr.startswith(f"{scan}: ")
    assert diffens("sr", scan, status=WRONG_USE).stderr.count("\n") == 1
    assert diffens("sr", scan, "-o", out, "--bundle_root", tmp_path, status=NOT_USABLE).stderr == (
        say("no_bundle", name=tmp_path) + "\n"
    )
    assert not out.exists()


@pytest.mark.parametrize(
    "words", [["sr", "", "-o", "out"], ["sr", "SCAN", "-o", ""], ["check", " "], ["demo", "-o", ""]]
)
def test_no_path_is_not_this_folder(scan, tmp_path, monkeypatch, words):
    """As of a variable of a shell that is not set."""
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    given = [str(scan) if word == "SCAN" else word for word in words]
    assert diffens(*given, status=WRONG_USE).stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_target_that_the_bundle_does_not_make(tmp_path):
    line = diffens("translate", tmp_path, "-o", "out", "--target", "CT", status=WRONG_USE).stderr
    assert line.startswith("--target CT: ") and "FLAIR" in line


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_no_permission(scan, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    diffens("sr", scan, "-o", locked / "out", status=WRONG_USE)


def test_an_empty_folder(tmp_path):
    (tmp_path / "in").mkdir()
    result = diffens("sr", tmp_path / "in", "-o", tmp_path / "out", status=SOME_FAILED)
    assert result.stderr == say("no_cases", name=tmp_path / "in") + "\n"
    assert not (tmp_path / "out").exists()


def test_check_tells_what_would_be_done_and_writes_nothing(scan, tmp_path):
    (scan.parent / "bad_T1w.nii.gz").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    lines = [
        json.loads(line) for line in diffens("check", tmp_path, "--json_lines", status=1).stdout.splitlines()
    ]
    assert [line["plan"] for line in lines] == ["work on", "reject"]
    assert (lines[0]["case"], lines[0]["voxels"]) == ("ball_T1w", [24, 28, 6])
    assert lines[0]["spacing_mm"] == [1, 1, 5] and lines[1]["reason"] == say("empty", name="bad_T1w.nii.gz")
    text = diffens("check", scan).stdout
    assert text.startswith("work on: ball_T1w, 24 x 28 x 6 voxels of 1 x 1 x 5 mm")
    assert sorted(tmp_path.rglob("*")) == before


def test_check_tells_of_the_file_that_a_run_would_take(scan):
    """In millimetres, by the affine, whatever the case of its ending and whatever lies beside it."""
    other = scan.with_name("ball_T1w.NII.GZ")
    image = nib.Nifti1Image(np.ones((4, 4, 4)), np.eye(4))
    image.to_filename(scan.with_name("ones.nii.gz"))
    scan.rename(other)
    scan.with_name("ones.nii.gz").rename(scan)
    (line,) = map(json.loads, diffens("check", other, "--json_lines").stdout.splitlines())
    assert line["voxels"] == [24, 28, 6] and line["spacing_mm"] == [1, 1, 5]


def test_check_tells_of_micrometres_in_millimetres(scan):
    image = nib.load(scan)
    voxels = image.get_fdata()
    image = nib.Nifti1Image(voxels, np.diag([1000, 1000, 5000, 1]))
    image.header.set_xyzt_units("micron")
    image.to_filename(scan)
    (line,) = map(json.loads, diffens("check", scan, "--json_lines").stdout.splitlines())
    assert line["spacing_mm"] == [1, 1, 5]


def test_sr_and_what_is_there_after_it(scan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = diffens("sr", scan.name, "-o", "2024.10", "--num-steps", 2, "--no-report")
    first, second, third = result.stdout.splitlines()
    assert first == "Restored 1 case (2 steps)" and second.startswith("Took ")
    assert third == f"Results: {tmp_path / '2024.10'}"
    restored = nib.load(tmp_path / "2024.10" / "ball_T1w_sr.nii.gz")
    assert restored.shape == (24, 28, 30)
    facts = json.loads((tmp_path / "2024.10" / "ball_T1w_sr.json").read_text())
    assert facts["Sampling"]["num_steps"] == 2
    again = diffens("sr", scan.name, "-o", "2024.10", "--num-steps", 2, "--no-report", "--json-lines")
    assert json.loads(again.stdout.splitlines()[-1])["skipped"] == 1
    other = diffens("sr", scan.name, "-o", "2024.10", "--quality", "fast", "--no-report", status=SOME_FAILED)
    assert other.stderr.count("\n") == 1
    assert diffens("sr", scan.name, "-o", "quiet", "--quiet", "--no-report").output == ""


def test_cases_that_were_never_begun_are_not_done(scan, tmp_path, monkeypatch):
    """The disk is full at the first: no other is begun."""
    (tmp_path / "in").mkdir()
    for name in "ab":
        (tmp_path / "in" / f"{name}.nii.gz").write_bytes(scan.read_bytes())

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer, "save_volume", full)
    told = diffens("sr", tmp_path / "in", "-o", tmp_path / "out", "--no-report", "--json-lines", status=1)
    summary = json.loads(told.stdout.splitlines()[-1])
    assert (summary["done"], summary["status"]) == (0, 1)
    assert summary["failed"][1] == say("no_result", name="b") and len(summary["failed"]) == 2


def test_a_process_without_streams(scan, tmp_path, monkeypatch):
    """As a service manager starts it."""
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert run_cases("sr", ROOT / "diffensembler_sr", scan, tmp_path / "out", {"report": False}) == 0
    assert (tmp_path / "out" / "ball_T1w_sr.nii.gz").is_file()


@pytest.mark.parametrize(("number", "status"), [(2, 130), (15, 143)])
def test_a_demo_that_a_signal_ends_is_one_line(tmp_path, monkeypatch, number, status):
    def stopped(*_: object) -> None:
        raise Interrupted(number)

    monkeypatch.setattr("monai_diffens.demo.run", stopped)
    told = diffens("demo", "-o", tmp_path / "demo", status=status).stderr
    assert told == say("interrupted", signal=signal.Signals(number).name) + "\n"


def test_view(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    assert diffens("view", tmp_path, status=WRONG_USE).stderr == say("no_page", name=tmp_path) + "\n"
    (tmp_path / "index.html").write_text("<p>")
    diffens("view", tmp_path)
    assert opened == [(tmp_path / "index.html").as_uri()]


def test_info_names_the_weights():
    out = diffens("info").stdout
    for task in ("sr", "translate"):
        record = (ROOT / f"diffensembler_{task}" / "models" / "model.pt.sha256").read_text().split()[0]
        assert f"SHA-256 {record}, as recorded" in out
    assert "threads: " in out


def test_bundle_path():
    assert diffens("bundle", "path", "sr").stdout.strip() == str(ROOT / "diffensembler_sr")
    assert (
        diffens("bundle", "path", "diffensembler_translate")
        .stdout.strip()
        .endswith("diffensembler_translate")
    )
    assert "sr, translate" in diffens("bundle", "path", "ct", status=NOT_USABLE).stderr


@pytest.mark.slow
@pytest.mark.parametrize("console", ["closed", "latin-1", "full"])
def test_a_console_never_decides_over_success(scan, tmp_path, console):
    out = tmp_path / "результат"  # no latin-1
    words = [
        "-c",
        "from monai_diffens.cli import main; main()",
        "sr",
        str(scan),
        "-o",
        str(out),
        "--no_report",
    ]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1" if console == "latin-1" else "utf-8"}
    with open("/dev/full" if console == "full" else os.devnull, "w") as told:
        done = subprocess.run(
            [sys.executable, *words],
            env=environment,
            stdout=told if console != "latin-1" else subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=(lambda: os.close(1)) if console == "closed" else None,
            check=False,
        )
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    assert (out / "ball_T1w_sr.nii.gz").is_file()
